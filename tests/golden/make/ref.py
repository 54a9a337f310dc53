"""Reference ("oracle") of the invariance+equivariance few-shot representation learner.

Everything is a pure function of its inputs: no hidden RNG in forward, losses or update.
dtype follows the inputs (float32 or float64).
"""
import math
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

SLOPE = 0.1
NCE_EPS = 1e-6


# ----------------------------------------------------------------------------- model
class Block(nn.Module):
    """Three 3x3 conv+BN, 1x1 conv+BN shortcut, LeakyReLU after the sum, then 2x2 max pool (floor)."""

    def __init__(self, cin, cout):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.conv3 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x, drop=None):
        act = lambda t: F.leaky_relu(t, SLOPE)
        h = act(self.bn1(self.conv1(x)))
        h = act(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h)) + self.downsample(x)
        h = F.max_pool2d(act(h), 2)
        return h if drop is None else h * drop


def mlp_head(d, out):
    return nn.Sequential(nn.Linear(d, d), nn.BatchNorm1d(d), nn.ReLU(),
                         nn.Linear(d, d), nn.BatchNorm1d(d), nn.ReLU(),
                         nn.Linear(d, out))


class Net(nn.Module):
    def __init__(self, widths=(64, 160, 320, 640), n_cls=64, n_trans=16, embd=64):
        super().__init__()
        w = (3,) + tuple(widths)
        for i in range(4):
            setattr(self, f'layer{i + 1}', nn.Sequential(Block(w[i], w[i + 1])))
        d = w[4]
        self.classifier = nn.Linear(d, n_cls)
        self.eq_head = mlp_head(d, n_trans)
        self.inv_head = mlp_head(d, embd)

    def embed(self, x, drops=None, maps=None):
        for i in range(4):
            x = getattr(self, f'layer{i + 1}')[0](x, None if drops is None else drops[i])
            if maps is not None:
                maps.append(x)
        return x.mean(dim=(2, 3))

    def forward(self, x, drops=None, maps=None):
        f = self.embed(x, drops, maps)
        return f, self.classifier(f), self.eq_head(f), self.inv_head(f)


def init_state(net, seed, fancy=False):
    """Deterministic numpy-driven init. Conv: N(0, 2/fan_out). Linear: U(+-1/sqrt(fan_in)) for w and b.
    fancy=True also randomises BN affine and running stats (for golden cases)."""
    r = np.random.default_rng(seed)
    sd = net.state_dict()
    for k in list(sd):
        v = sd[k]
        if k.endswith('num_batches_tracked'):
            continue
        sh = tuple(v.shape)
        if v.dim() == 4:
            a = r.standard_normal(sh) * math.sqrt(2.0 / (sh[0] * sh[2] * sh[3]))
        elif v.dim() == 2:
            b = 1 / math.sqrt(sh[1]); a = r.uniform(-b, b, sh)
        elif k.endswith('running_mean'):
            a = 0.1 * r.standard_normal(sh) if fancy else np.zeros(sh)
        elif k.endswith('running_var'):
            a = r.uniform(0.5, 1.5, sh) if fancy else np.ones(sh)
        elif k.replace('.bias', '.running_var') in sd or k.replace('.weight', '.running_var') in sd:   # BN affine
            one = k.endswith('weight')
            a = (r.uniform(0.7, 1.3, sh) if one else 0.1 * r.standard_normal(sh)) if fancy else (np.ones(sh) if one else np.zeros(sh))
        else:                                            # linear bias
            fan = sd[k.replace('bias', 'weight')].shape[1]
            b = 1 / math.sqrt(fan); a = r.uniform(-b, b, sh)
        v.copy_(torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)))
    return net


# ----------------------------------------------------------------------------- transforms
def rot4(x):
    """[x, 90 ccw, 180, 270 ccw], each a block of B images."""
    return torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)], 0)


def all_copies(views):
    """M blocks of B images; transform id = 4*view + rotation; row of (m, b) is m*B + b."""
    return torch.cat([rot4(v) for v in views], 0)


def dropblock_multiplier(seed, bs):
    """seed (N,C,H-bs+1,W-bs+1) of 0/1. Each 1 at (i,j) zeroes rows i..i+bs-1, cols j..j+bs-1.
    Result: keep * (numel / number kept), over the whole tensor."""
    dil = F.max_pool2d(F.pad(seed, (bs - 1,) * 4), bs, stride=1)
    keep = 1 - dil
    return keep, keep * (keep.numel() / keep.sum())


# ----------------------------------------------------------------------------- losses
def nce(anchor, other, neg, tau):
    """Mean over rows of -log( e(a.o) / (e(a.o) + sum_k e(o.n_k) + eps) ); negatives are compared with `other`."""
    unit = lambda t: t / (t.norm(dim=1, keepdim=True) + NCE_EPS)
    a, o, n = unit(anchor), unit(other), unit(neg)
    pos = torch.exp((a * o).sum(1) / tau)
    den = pos + torch.exp(o @ n.t() / tau).sum(1) + NCE_EPS
    return -(torch.log(pos / den)).mean()


def inv_loss(z, B, M, bank_rows, neg, tau):
    v0 = z[:B]
    tot = nce(bank_rows, v0, neg, tau)
    for m in range(1, M):
        tot = tot + nce(v0, z[m * B:(m + 1) * B], neg, tau)
    return tot / M


def kl_T(s, t, T=4.0):
    ls, lt = F.log_softmax(s / T, 1), F.log_softmax(t / T, 1)
    return (lt.exp() * (lt - ls)).sum() * T * T / s.shape[0]


def ier_loss(out, labels, B, M, bank, idx, neg_idx, tau=1.0, gamma=1.0):
    """labels: (B,) class ids; transform id of row r is r // B."""
    _, c, e, z = out
    tid = torch.arange(M).repeat_interleave(B)
    ce = F.cross_entropy(c, labels.repeat(M))
    eq = F.cross_entropy(e, tid)
    inv = inv_loss(z, B, M, bank[idx], bank[neg_idx], tau)
    return {'total': ce + gamma * (eq + inv), 'ce': ce, 'eq': eq, 'inv': inv}


def distill_loss(out_s, out_t, base, w_ce=1.0, w_div=1.0, T=4.0):
    """base: dict of ier_loss of the student."""
    fs, cs, es, zs = out_s
    ft, ct, et, zt = out_t
    d = dict(base)
    d['kl_cls'], d['kl_eq'] = kl_T(cs, ct, T), kl_T(es, et, T)
    d['mse_inv'], d['mse_feat'] = F.mse_loss(zs, zt), F.mse_loss(fs, ft)
    d['total'] = w_ce * base['total'] + w_div * (d['kl_cls'] + d['kl_eq'] + d['mse_inv'] + d['mse_feat'])
    return d


# ----------------------------------------------------------------------------- update
class SGD:
    """v <- mu v + (g + wd p); p <- p - lr v. First step v = g + wd p (zero-initialised v). All params decayed."""

    def __init__(self, params, lr, mu=0.9, wd=5e-4):
        self.p = list(params); self.lr, self.mu, self.wd = lr, mu, wd
        self.v = [torch.zeros_like(p) for p in self.p]

    @torch.no_grad()
    def step(self):
        for p, v in zip(self.p, self.v):
            g = p.grad if p.grad is not None else torch.zeros_like(p)
            v.mul_(self.mu).add_(g + self.wd * p)
            p.sub_(self.lr * v)

    def zero(self):
        for p in self.p:
            p.grad = None


@torch.no_grad()
def bank_update(bank, idx, v0, rate=0.99):
    out = bank.clone()
    out[idx] = rate * bank[idx] + (1 - rate) * v0
    return out


def bank_init(n, d, rng):
    b = rng.standard_normal((n, d)).astype(np.float32)
    return b / (np.linalg.norm(b, axis=1, keepdims=True) + 1e-6)


def sample_negatives(n, idx, k, rng):
    """k distinct bank rows, none of the batch."""
    pool = np.setdiff1d(np.arange(n), np.asarray(idx))
    return rng.permutation(pool)[:k]
