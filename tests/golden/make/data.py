"""Augmentation (batched, float, explicit randomness)."""
import torch


# ------------------------------------------------------------------ augmentation on (B,3,S,S) floats in [0,1]
def shift_crop(x, dy, dx, pad):
    """Zero-pad by `pad`, take the SxS window with top-left (dy,dx), 0<=dy,dx<=2*pad, per image."""
    B, C, S, _ = x.shape
    p = torch.nn.functional.pad(x, (pad,) * 4)
    r = torch.as_tensor(dy).view(B, 1) + torch.arange(S); c = torch.as_tensor(dx).view(B, 1) + torch.arange(S)
    return p[torch.arange(B).view(B, 1, 1, 1), torch.arange(C).view(1, C, 1, 1), r.view(B, 1, S, 1), c.view(B, 1, 1, S)]


def axis_weights(off, size, S, dtype=torch.float32):
    """Half-pixel bilinear sampling of a window [off, off+size) to S samples, clamped to the window."""
    s = ((torch.arange(S, dtype=dtype) + 0.5) * (size / S) - 0.5).clamp(0, size - 1)
    i0 = s.floor().long(); i1 = (i0 + 1).clamp(max=size - 1); w = s - i0
    o = torch.as_tensor(off).view(-1, 1)
    return o + i0, o + i1, w


def crop_resize(x, top, left, h, w):
    """Per-image window (same h,w for all) resized to SxS, bilinear, half-pixel centres."""
    B, C, S, _ = x.shape
    b, c = torch.arange(B).view(B, 1, 1, 1), torch.arange(C).view(1, C, 1, 1)
    r0, r1, wr = axis_weights(top, h, S, x.dtype); c0, c1, wc = axis_weights(left, w, S, x.dtype)
    g = lambda r, q: x[b, c, r.view(B, 1, S, 1), q.view(B, 1, 1, S)]
    wr, wc = wr.view(1, 1, S, 1), wc.view(1, 1, 1, S)
    t = g(r0, c0) * (1 - wc) + g(r0, c1) * wc
    u = g(r1, c0) * (1 - wc) + g(r1, c1) * wc
    return t * (1 - wr) + u * wr


GRAY = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)


def jitter(x, fb, fc, fs, order):
    """Brightness / contrast / saturation factors per image; `order` a permutation of (0,1,2); clamp to [0,1] after each."""
    fb, fc, fs = (torch.as_tensor(f, dtype=torch.float32).view(-1, 1, 1, 1) for f in (fb, fc, fs))
    for o in order:
        if o == 0: x = x * fb
        elif o == 1:
            m = (x * GRAY).sum(1, keepdim=True).mean((2, 3), keepdim=True); x = fc * x + (1 - fc) * m
        else:
            g = (x * GRAY).sum(1, keepdim=True); x = fs * x + (1 - fs) * g
        x = x.clamp(0, 1)
    return x
