"""Write the safetensors fixtures and tolerances.json into a folder: python make_golden.py FOLDER.
Expected values are computed in float64 from the exact float32 inputs and rounded to float32.
The same computation in torch float32 (NCHW and channels_last) gives the error figures behind the tolerances."""
import json, math, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file
import ref, data
torch.set_num_threads(1)
OUT = sys.argv[1] if len(sys.argv) > 1 else 'golden'; os.makedirs(OUT, exist_ok=True)
EPS = 2.0 ** -24
FILES = {}     # file -> {name: tensor}
META = {}      # file -> {key: str}
ROWS = []      # (file, name, shape, kind, meaning, max|ref|, abs err, relL2 err, atol, rtolL2)
rng = np.random.default_rng(20240)
N = lambda *s, sc=1.0: torch.from_numpy((sc * rng.standard_normal(s)).astype(np.float32))
U = lambda *s, lo=0., hi=1.: torch.from_numpy(rng.uniform(lo, hi, s).astype(np.float32))
I = lambda hi, *s: torch.from_numpy(rng.integers(0, hi, s))


def put(file, name, t, meaning, kind='in', err=None, k=16):
    t = t.detach()
    f32 = t.to(torch.float32).contiguous().clone()
    d = FILES.setdefault(file, {}); assert name not in d, name
    d[name] = f32
    if err is None:
        ROWS.append((file, name, tuple(t.shape), kind, meaning) + (None,) * 5); return
    ea, er, mx, rms = err
    n = max(1, t.numel())
    # floor: a few ulps of the largest magnitude; factor k over what torch float32 shows, for another summation order
    atol = max(k * ea, 8 * EPS * mx, 1e-7)
    rtol = None if rms < 1e-8 else max(k * er, 1e-6)
    ROWS.append((file, name, tuple(t.shape), kind, meaning, mx, ea, er, float(f'{atol:.1e}'), None if rtol is None else float(f'{rtol:.1e}')))


def compare(r64, r32s):
    r64 = r64.double(); mx = r64.abs().max().item() if r64.numel() else 0.; nrm = r64.norm().item()
    ea = max((a.double() - r64).abs().max().item() for a in r32s)
    er = max((a.double() - r64).norm().item() / max(nrm, 1e-300) for a in r32s)
    return ea, er, mx, nrm / math.sqrt(max(1, r64.numel()))


def case(file, pre, inputs, fn, doc, attrs=None, exact=()):
    """inputs: dict name -> (tensor, meaning); fn(dict) -> dict name -> tensor ; doc: name -> meaning."""
    p = pre + '.' if pre else ''
    for k, (t, m) in inputs.items(): put(file, p + k, t.float(), m)
    conv = lambda dt, cl: {k: ((t.to(dt).contiguous(memory_format=torch.channels_last) if cl and t.dim() == 4 else t.to(dt).clone()) if t.is_floating_point() else t) for k, (t, m) in inputs.items()}
    r64 = fn(conv(torch.float64, False)); r32 = [fn(conv(torch.float32, c)) for c in (False, True)]
    for k, v in r64.items():
        put(file, p + k, v, doc.get(k, ''), 'out', compare(v.detach(), [r[k].detach() for r in r32]))
    if attrs: META.setdefault(file, {}).update({pre: json.dumps(attrs)})
    return r64


def G(d, ks):
    for k in ks: d[k].requires_grad_(True)
    return d


# =============================================================== 1. per-op cases
O = 'ops.safetensors'
convs = [  # N,C,H,W, O, k, s, p
    (2, 3, 32, 32, 16, 3, 1, 1), (3, 5, 7, 9, 6, 3, 1, 1), (2, 8, 21, 21, 16, 1, 1, 0), (2, 6, 15, 15, 10, 3, 2, 1),
    (1, 16, 5, 5, 32, 3, 1, 1), (4, 33, 10, 10, 18, 3, 1, 1), (2, 7, 1, 1, 9, 3, 1, 1), (2, 10, 9, 9, 7, 1, 2, 0), (8, 8, 32, 32, 8, 3, 1, 1)]
for i, (n, c, h, w, o, k, s, p) in enumerate(convs):
    oh, ow = (h + 2 * p - k) // s + 1, (w + 2 * p - k) // s + 1
    def f(d, s=s, p=p):
        G(d, ['x', 'w']); y = F.conv2d(d['x'], d['w'], stride=s, padding=p); y.backward(d['gy'])
        return {'y': y, 'gx': d['x'].grad, 'gw': d['w'].grad}
    case(O, f'conv{i}', {'x': (N(n, c, h, w), 'input NCHW'), 'w': (N(o, c, k, k, sc=math.sqrt(2 / (c * k * k))), 'weight OIHW'), 'gy': (N(n, o, oh, ow), 'upstream gradient')},
         f, {'y': 'output', 'gx': 'd/dx', 'gw': 'd/dw'}, dict(stride=s, pad=p, kernel=k, bias=False))

for nm, x in (('bn2d_a', N(4, 6, 5, 7) * 1.5 + 0.3), ('bn2d_b', N(8, 5, 3, 3) * 0.5 + 30.0), ('bn2d_c', N(32, 8, 16, 16)), ('bn1d_a', N(16, 10) * 2 - 1), ('bn1d_b', N(32, 64))):
    C = x.shape[1]
    def f(d):
        G(d, ['x', 'gamma', 'beta']); rm, rv = d['rm'].clone(), d['rv'].clone()
        y = F.batch_norm(d['x'], rm, rv, d['gamma'], d['beta'], True, 0.1, 1e-5); y.backward(d['gy'])
        ye = F.batch_norm(d['x'].detach(), d['rm'], d['rv'], d['gamma'].detach(), d['beta'].detach(), False, 0.1, 1e-5)
        return {'y': y, 'gx': d['x'].grad, 'ggamma': d['gamma'].grad, 'gbeta': d['beta'].grad, 'rm_after': rm, 'rv_after': rv, 'y_eval': ye}
    case(O, nm, {'x': (x, 'input'), 'gamma': (U(C, lo=.5, hi=1.5), 'scale'), 'beta': (N(C, sc=.2), 'shift'), 'rm': (N(C, sc=.3), 'running mean before'), 'rv': (U(C, lo=.5, hi=2), 'running var before'), 'gy': (N(*x.shape), 'upstream gradient')},
         f, {'y': 'train-mode output (biased batch variance)', 'gx': 'd/dx', 'ggamma': 'd/dgamma', 'gbeta': 'd/dbeta', 'rm_after': 'running mean after (momentum .1)', 'rv_after': 'running var after (unbiased n/(n-1))', 'y_eval': 'eval-mode output with rm, rv before'}, dict(eps=1e-5, momentum=0.1))

def f(d):
    G(d, ['x']); y = F.leaky_relu(d['x'], .1); y.backward(d['gy']); g1 = d['x'].grad.clone(); d['x'].grad = None
    z = F.relu(d['x']); z.backward(d['gy']); return {'leaky_y': y, 'leaky_gx': g1, 'relu_y': z, 'relu_gx': d['x'].grad}
x = N(3, 4, 5, 5); x.view(-1)[[0, 7, 31]] = 0.0
case(O, 'act', {'x': (x, 'input; elements 0,7,31 are exactly 0 (derivative there: slope for leaky, 0 for relu)'), 'gy': (N(3, 4, 5, 5), 'upstream gradient')}, f, {'leaky_y': 'LeakyReLU(0.1)', 'leaky_gx': 'its d/dx', 'relu_y': 'ReLU', 'relu_gx': 'its d/dx'})

for nm, x in (('pool_even', N(2, 3, 8, 8)), ('pool_odd', N(2, 5, 7, 5)), ('pool_21', N(1, 4, 21, 21)), ('pool_ties', torch.round(N(2, 3, 6, 6))), ('pool_3to1', N(2, 3, 3, 3))):
    def f(d):
        G(d, ['x']); y = F.max_pool2d(d['x'], 2); y.backward(d['gy']); return {'y': y, 'gx': d['x'].grad}
    case(O, nm, {'x': (x, 'input' + (' with tied maxima: the first in row-major window order takes the gradient' if nm == 'pool_ties' else '')), 'gy': (N(x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2), 'upstream gradient')}, f, {'y': 'max over 2x2, floor', 'gx': 'd/dx; the dropped last row/column of an odd size gets 0'})

def f(d):
    G(d, ['x']); y = d['x'].mean((2, 3)); y.backward(d['gy']); return {'y': y, 'gx': d['x'].grad}
case(O, 'avgpool', {'x': (N(3, 10, 5, 5), 'input'), 'gy': (N(3, 10), 'upstream gradient')}, f, {'y': 'mean over H,W', 'gx': 'd/dx'})
for i, (n, a, b) in enumerate([(7, 13, 5), (32, 64, 64), (16, 640, 10)]):
    def f(d):
        G(d, ['x', 'w', 'b']); y = F.linear(d['x'], d['w'], d['b']); y.backward(d['gy']); return {'y': y, 'gx': d['x'].grad, 'gw': d['w'].grad, 'gb': d['b'].grad}
    case(O, f'linear{i}', {'x': (N(n, a), 'input'), 'w': (N(b, a, sc=1 / math.sqrt(a)), 'weight (out,in)'), 'b': (N(b), 'bias'), 'gy': (N(n, b), 'upstream gradient')}, f, {'y': 'x w^T + b', 'gx': 'd/dx', 'gw': 'd/dw', 'gb': 'd/db'})

for i, (n, c, sc) in enumerate([(12, 10, 1.), (9, 64, None), (32, 16, 3.)]):
    x = U(n, c, lo=-80, hi=80) if sc is None else N(n, c, sc=sc)
    y = I(c, n)
    if sc is None: x[0, :] = -80; x[0, 3] = 80; y[0] = 3; x[1, :] = 80; y[1] = 0; x[2, :] = -80; x[2, 1] = 80; y[2] = 2
    def f(d, y=y):
        G(d, ['x']); l = F.cross_entropy(d['x'], y); l.backward(); return {'loss': l, 'gx': d['x'].grad}
    case(O, f'ce{i}', {'x': (x, 'logits' + (' in [-80,80]; rows 0-2 are extreme' if sc is None else '')), 'y': (y, 'class ids (stored as f32)')}, f, {'loss': 'mean cross entropy, scalar shape []', 'gx': 'd/dlogits'})

va, vt, mn = N(8, 64), N(8, 64) * 3, N(100, 64)
vt[:4] = va[:4] * 2 + 0.3 * N(4, 64)
for tau in (0.1, 1.0):
    def f(d, tau=tau):
        G(d, ['anchor', 'other', 'neg']); l = ref.nce(d['anchor'], d['other'], d['neg'], tau); l.backward(); return {'loss': l, 'ganchor': d['anchor'].grad, 'gother': d['other'].grad, 'gneg': d['neg'].grad}
    case(O, f'nce_tau{tau}', {'anchor': (va, 'anchor rows (un-normalised)'), 'other': (vt, 'other rows; these meet the negatives'), 'neg': (mn, 'negatives (un-normalised)')}, f, {'loss': 'mean over 8 rows', 'ganchor': 'd/danchor', 'gother': 'd/dother', 'gneg': 'd/dneg (not needed in training)'}, dict(tau=tau, norm_eps=1e-6, denom_eps=1e-6))
B, M = 2, 4
def f(d):
    G(d, ['z']); l = ref.inv_loss(d['z'], B, M, d['bank_rows'], d['neg'], 0.5); l.backward(); return {'loss': l, 'gz': d['z'].grad}
case(O, 'invloss', {'z': (N(8, 16), 'inv head output, M=4 blocks of B=2'), 'bank_rows': (N(2, 16), 'bank entries of the batch (constants)'), 'neg': (N(20, 16), 'negatives (constants)')}, f, {'loss': '(1/M)(nce(bank,v0) + sum_m nce(v0,vm))', 'gz': 'd/dz, both roles of v0 included'}, dict(B=2, M=4, tau=0.5))
def f(d):
    G(d, ['s']); l = ref.kl_T(d['s'], d['t'], 4.0); l.backward(); return {'loss': l, 'gs': d['s'].grad}
for i, (n, c, sc) in enumerate([(8, 10, 2.), (6, 16, 25.)]):
    case(O, f'kl{i}', {'s': (N(n, c, sc=sc), 'student logits'), 't': (N(n, c, sc=sc), 'teacher logits')}, f, {'loss': 'T^2/N sum p_t (log p_t - log p_s)', 'gs': 'd/ds'}, dict(T=4))
def f(d):
    G(d, ['s']); l = F.mse_loss(d['s'], d['t']); l.backward(); return {'loss': l, 'gs': d['s'].grad}
case(O, 'mse', {'s': (N(6, 64), 'student'), 't': (N(6, 64), 'teacher')}, f, {'loss': 'mean over all elements', 'gs': 'd/ds'})
def f(d):
    p = d['p'].clone(); v = torch.zeros_like(p); o = {}
    for i in range(3):
        v = .9 * v + d[f'g{i}'] + 5e-4 * p; p = p - .05 * v; o[f'p{i + 1}'] = p; o[f'v{i + 1}'] = v
    return o
case(O, 'sgd', {'p': (N(101), 'parameter'), **{f'g{i}': (N(101), f'raw gradient of step {i + 1}') for i in range(3)}}, f, {**{f'p{i}': f'parameter after step {i}' for i in (1, 2, 3)}, **{f'v{i}': f'momentum after step {i}' for i in (1, 2, 3)}}, dict(lr=.05, momentum=.9, weight_decay=5e-4))
bi = torch.tensor([3, 17, 0, 9])
case(O, 'bank', {'bank': (N(20, 16), 'bank before'), 'idx': (bi, 'image indices (f32)'), 'v0': (N(4, 16), 'head output on view 0, rotation 0 (raw, not normalised)')}, lambda d: {'after': ref.bank_update(d['bank'], bi, d['v0'])}, {'after': '0.99 old + 0.01 v0 on rows idx; others unchanged; not re-normalised'}, dict(rate=.99))
vs = [N(2, 3, 6, 6) for _ in range(4)]
case(O, 'copies', {f'view{i}': (v, f'view {i}') for i, v in enumerate(vs)}, lambda d: {'x': ref.all_copies([d[f'view{i}'] for i in range(4)])}, {'x': '16 blocks of 2; id = 4*view + rot; rot = 0, 90 ccw, 180, 270 ccw'})
seed = (U(4, 6, 4, 4) < .12).float()
def f(d):
    G(d, ['x']); k, m = ref.dropblock_multiplier(d['seed'], 2); y = d['x'] * m; y.backward(d['gy']); return {'keep': k, 'mult': m, 'y': y, 'gx': d['x'].grad}
case(O, 'dropblock', {'seed': (seed, 'Bernoulli seeds, (N,C,H-bs+1,W-bs+1)'), 'x': (N(4, 6, 5, 5), 'input'), 'gy': (N(4, 6, 5, 5), 'upstream gradient')}, f, {'keep': '1 - union of the 2x2 squares with top-left at each seed', 'mult': 'keep * numel/sum(keep) over the whole tensor', 'y': 'x*mult', 'gx': 'd/dx'}, dict(block_size=2))
case(O, 'l2n', {'x': (N(6, 32), 'features')}, lambda d: {'y': d['x'] / d['x'].norm(dim=1, keepdim=True)}, {'y': 'row L2 normalisation used at evaluation'})

# =============================================================== 2./3. whole model
def make_net(widths, n_cls, M, seed, dt=torch.float32, calibrate=None):
    n = ref.init_state(ref.Net(widths, n_cls, M, 64), seed, fancy=True)
    if calibrate is not None:           # realistic running stats: train-mode passes in f64, rounded to f32
        n = n.double().train()
        with torch.no_grad():
            for _ in range(30): n(calibrate.double() + 0.1 * torch.randn(calibrate.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + _)))
        n = n.float()
    return n

sd_of = lambda n: {k: v.detach().clone() for k, v in n.state_dict().items() if v.dtype.is_floating_point}

def run(widths, n_cls, M, B, sd, x, labels, bank, idx, neg, tau, gamma, steps, dt, cl, drops=None, teacher=None, w=(1., 1.), maps=False, lr=0.05):
    mk = lambda s: (lambda n: (n.load_state_dict(s, strict=False), n.to(dt))[1])(ref.Net(widths, n_cls, M, 64))
    net = mk(sd).train(); xx = x.to(dt)
    if cl: net = net.to(memory_format=torch.channels_last); xx = xx.contiguous(memory_format=torch.channels_last)
    drops = None if drops is None else [d.to(dt) for d in drops]
    o = {}; bk = bank.to(dt); opt = ref.SGD(net.parameters(), lr)
    if teacher is not None:
        t = mk(teacher).eval()
        with torch.no_grad(): tout = t(xx)
        for k, v in zip(('feat', 'cls', 'eq', 'inv'), tout): o['tout.' + k] = v
    for s in range(1, steps + 1):
        mp = [] if (maps and s == 1) else None
        out = net(xx, drops, mp)
        L = ref.ier_loss(out, labels, B, M, bk, idx, neg, tau, gamma)
        if teacher is not None: L = ref.distill_loss(out, tout, L, *w)
        bk = ref.bank_update(bk, idx, out[3][:B].detach())
        opt.zero(); L['total'].backward()
        if s == 1:
            for k, v in zip(('feat', 'cls', 'eq', 'inv'), out): o['out.' + k] = v
            for i, m in enumerate(mp or []): o[f'map.layer{i + 1}'] = m
            for k, v in L.items(): o['loss.' + k] = v
            for k, v in net.named_parameters(): o['grad.' + k] = v.grad.clone()
        else:
            for k, v in L.items(): o[f'loss_step{s}.{k}'] = v
        opt.step()
        if s in (1, 5):
            for k, v in sd_of(net).items(): o[f's{s}.{k}'] = v
            o[f's{s}.bank'] = bk.clone()
    return {k: v.detach().contiguous() for k, v in o.items()}

def explain(k):
    h, _, r = k.partition('.')
    return {'out': f'student/model {r} output at step 1', 'tout': f'teacher {r} output (eval mode)', 'loss': f'loss term {r}, step 1', 'grad': 'd total / d parameter, step 1 (no weight decay in it)',
            's1': 'state after 1 step', 'wd': 'parameter after 1 step with weight decay 0.5 instead of 5e-4, lr .05', 's5': 'state after 5 steps, lr .05', 'lo5': 'state after 5 steps, lr .005', 'map': 'output of that layer (after pooling and dropout)', 'init': 'initial state', 'teacher': 'teacher state'}.get(h, f'loss term {r} at {h.split("_")[-1]}, lr {".005" if h.startswith("lo_") else ".05"}')

def model_case(file, widths, n_cls, M, B, S, tau, gamma, steps, seed, drop=False, distill=False, maps=False, w=(1., 1.)):
    global rng
    rng = np.random.default_rng(seed)
    nv = M // 4
    views = [N(B, 3, S, S) for _ in range(nv)]
    x = ref.all_copies(views)
    labels = I(n_cls, B); Nb, K = 100, 64
    bank = torch.from_numpy(ref.bank_init(Nb, 64, rng)); idx = torch.from_numpy(rng.permutation(Nb)[:B].copy())
    neg = torch.from_numpy(ref.sample_negatives(Nb, idx.numpy(), K, rng).copy()); assert not set(neg.tolist()) & set(idx.tolist())
    net = make_net(widths, n_cls, M, seed); sd = sd_of(net)
    for i, v in enumerate(views): put(file, f'view{i}', v, f'view {i} of the {B} images')
    put(file, 'x', x, 'the M*B transformed copies fed to the model')
    put(file, 'labels', labels, 'class id per image (f32); repeats M times over the copies')
    put(file, 'transform_ids', torch.arange(M).repeat_interleave(B), 'transform id per copy (f32)')
    put(file, 'bank', bank, 'memory bank before'); put(file, 'idx', idx, 'bank rows of the batch (f32)'); put(file, 'neg_idx', neg, 'bank rows used as negatives, the same every step (f32)')
    for k, v in sd.items(): put(file, 'init.' + k, v, 'initial state')
    drops = tsd = None
    if drop:
        drops = []
        sizes = [S // 2, S // 4, S // 8, S // 16]
        for i in range(2):
            k = (torch.from_numpy(rng.random((M * B, widths[i], sizes[i], sizes[i]))) >= .1).float(); put(file, f'drop{i + 1}.keep', k, 'dropout keep mask (p=.1)'); drops.append(k / .9)
        for i in (2, 3):
            s = (torch.from_numpy(rng.random((M * B, widths[i], sizes[i] - 1, sizes[i] - 1))) < .08).float(); k, m = ref.dropblock_multiplier(s.double(), 2)
            put(file, f'drop{i + 1}.seed', s, 'DropBlock seeds, block size 2'); put(file, f'drop{i + 1}.keep', k, 'derived keep mask'); drops.append(m)
        put(file, 'drop_scale', torch.tensor([1 / .9, 1 / .9, drops[2].max(), drops[3].max()], dtype=torch.float64), 'multiplier of kept cells per layer (mask*scale, applied after the max pool)')
        drops = [drops[0].double() * .9 / .9, drops[1].double(), drops[2], drops[3]]
        drops = [(d > 0).double() * float(s) for d, s in zip(drops, (1 / .9, 1 / .9, drops[2].max(), drops[3].max()))]
    if distill:
        tnet = make_net(widths, n_cls, M, seed + 77, calibrate=x); tsd = sd_of(tnet)
        for k, v in tsd.items(): put(file, 'teacher.' + k, v, 'teacher state')
    def go(dt, cl, xx=x):
        r = lambda mp, lr: run(widths, n_cls, M, B, sd, xx, labels, bank, idx, neg, tau, gamma, steps, dt, cl, drops, tsd, w, mp, lr)
        o = r(maps, 0.05)
        if maps:            # one step with a huge decay (0.5): shows that every parameter is decayed
            for k, v in sd.items():
                if 'running' not in k: o['wd.' + k] = v.to(dt) - 0.05 * (o['grad.' + k] + 0.5 * v.to(dt))
        if steps == 5:      # the same five steps at a tenth of the rate: little rounding growth, so a sharp multi-step check
            for k, v in r(False, 0.005).items():
                if k.startswith('s5.'): o['lo5.' + k[3:]] = v
                elif k.startswith('loss_step'): o['lo_' + k] = v
        return o
    r64 = go(torch.float64, False)
    # float32 samples: two memory layouts, each also with inputs jiggled by about one ulp (exposes ReLU / max-pool decisions near a tie)
    pg = torch.Generator().manual_seed(1)
    jig = lambda: x * (1 + 6e-8 * torch.randn(x.shape, generator=pg))
    r32 = [go(torch.float32, c) for c in (False, True)] + [go(torch.float32, c, jig()) for c in (False, True, False, True)]
    for k, v in r64.items(): put(file, k, v, explain(k), 'out', compare(v, [r[k] for r in r32]), 8)
    META.setdefault(file, {}).update({k: str(v) for k, v in dict(widths=widths, n_cls=n_cls, M=M, B=B, S=S, tau=tau, gamma=gamma, lr=.05, momentum=.9, weight_decay=5e-4, bank_rate=.99, steps=steps, w_ce=w[0], w_div=w[1], T=4).items()})
    print(file, {k[5:]: round(v.item(), 5) for k, v in r64.items() if k.startswith('loss.')}, 'step5', {k[11:]: round(v.item(), 4) for k, v in r64.items() if k.startswith('loss_step5')})

W = (8, 16, 32, 64)
model_case('model_b4m4.safetensors', W, 10, 4, 4, 32, 0.1, 0.5, 5, 103, maps=True)
model_case('model_b2m16.safetensors', W, 10, 16, 2, 32, 1.0, 1.0, 5, 102)
model_case('model_dropblock.safetensors', W, 10, 4, 4, 32, 1.0, 1.0, 1, 109, drop=True)
model_case('distill_b2m16.safetensors', W, 10, 16, 2, 32, 1.0, 1.0, 5, 102, distill=True, w=(0.7, 1.3))

# =============================================================== 4. eval embedding
rng = np.random.default_rng(15)
file = 'embed.safetensors'
en = make_net((16, 32, 64, 128), 10, 16, 15, calibrate=N(16, 3, 32, 32)); esd = sd_of(en)
for k, v in esd.items(): put(file, 'state.' + k, v, 'model state')
xs = {84: N(4, 3, 84, 84), 32: N(8, 3, 32, 32), 28: N(8, 3, 28, 28)}
def f(d):
    dt = d['x84'].dtype; n = ref.Net((16, 32, 64, 128), 10, 16, 64); n.load_state_dict(esd, strict=False); n = n.to(dt).eval(); o = {}
    with torch.no_grad():
        for s in xs:
            mp = []; e, c, q, z = n(d[f'x{s}'], maps=mp); o[f'feat{s}'] = e; o[f'featn{s}'] = e / e.norm(dim=1, keepdim=True); o[f'cls{s}'] = c; o[f'inv{s}'] = z; o[f'eq{s}'] = q
    return o
case(file, '', {f'x{s}': (v, f'input {s}x{s}') for s, v in xs.items()}, f, {**{f'feat{s}': f'embedding of {s}x{s} in eval mode' for s in xs}, **{f'featn{s}': 'L2-normalised embedding' for s in xs}, **{f'{h}{s}': f'{h} head, eval mode' for s in xs for h in ('cls', 'inv', 'eq')}}, None)

# =============================================================== 5. evaluation classifier, augmentation (extras)
from sklearn.linear_model import LogisticRegression
file = 'evalcls.safetensors'; rng = np.random.default_rng(16)
for ways, shots, q, D in ((5, 1, 15, 64), (5, 5, 15, 64), (20, 1, 1, 128)):
    p = f'lr_{ways}w{shots}s'
    cen = rng.standard_normal((ways, D)); mk = lambda n: (lambda a: (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32))(np.repeat(cen, n, 0) + 1.6 * rng.standard_normal((ways * n, D)))
    s, t = mk(shots), mk(q); ys = np.repeat(np.arange(ways), shots)
    c = LogisticRegression(tol=1e-12, max_iter=100000, C=1.0).fit(s.astype(np.float64), ys)
    d = LogisticRegression(random_state=0, max_iter=1000).fit(s, ys)
    dec = c.decision_function(t.astype(np.float64)); cn = s.astype(np.float64).reshape(ways, shots, D).mean(1)
    put(file, p + '.support', torch.from_numpy(s), 'L2-normalised support features'); put(file, p + '.support_y', torch.from_numpy(ys), 'labels (f32)'); put(file, p + '.query', torch.from_numpy(t), 'query features')
    put(file, p + '.query_y', torch.from_numpy(np.repeat(np.arange(ways), q)), 'true labels (f32)')
    for k, v, e, m in (('W', c.coef_, d.coef_, 'converged weights of min sum CE + 1/2 |W|^2 (intercept unpenalised)'), ('b', c.intercept_, d.intercept_, 'intercepts (mean 0)'), ('logits', dec, d.decision_function(t), 'W q + b')):
        put(file, f'{p}.{k}', torch.from_numpy(v), m + '; error column = sklearn default tol, f32', 'out', compare(torch.from_numpy(np.asarray(v)), [torch.from_numpy(np.asarray(e))]))
    put(file, p + '.pred', torch.from_numpy(c.predict(t.astype(np.float64))), f'LR predictions (f32); smallest top-2 logit gap {np.diff(np.sort(dec, 1)[:, -2:], axis=1).min():.1e}', 'out', (0, 0, ways, 1.))
    put(file, p + '.pred_centroid', torch.from_numpy(((t[:, None].astype(np.float64) - cn) ** 2).sum(-1).argmin(1)), 'nearest-centroid predictions (f32)', 'out', (0, 0, ways, 1.))
    print(p, 'sklearn default vs converged preds differ:', int((c.predict(t) != d.predict(t)).sum()))

file = 'augment.safetensors'; rng = np.random.default_rng(17)
for S, pad in ((32, 4), (28, 3), (84, 8)):
    B = 2 if S == 84 else 3; x = U(B, 3, S, S); c = math.ceil(2 * S / 3); R = S - c; ri = lambda hi: rng.integers(0, hi, B)
    dy, dx = ri(2 * pad + 1), ri(2 * pad + 1); t2, l3, t4, l4 = ri(R), ri(R), ri(R), ri(R); z = np.zeros(B, dtype=np.int64)
    fb, fc, fs = (U(B, lo=.6, hi=1.4) for _ in range(3))
    T = lambda a: torch.from_numpy(np.asarray(a))
    def f(d):
        base = data.shift_crop(d['x'], dy, dx, pad)
        data.GRAY = data.GRAY.to(d['x'].dtype)
        o = {'base': base, 'v2': data.crop_resize(base, t2, z, c, S), 'v3': data.crop_resize(base, z, l3, S, c), 'v4': data.crop_resize(base, t4, l4, c, c)}
        for od in ((0, 1, 2), (2, 1, 0)):
            y = base
            for k in od:
                dtp = base.dtype; g = lambda q: q.to(dtp).view(-1, 1, 1, 1); y = data.jitter(y, g(fb), g(fc), g(fs), (k,)) if dtp == torch.float32 else jit64(y, g(fb), g(fc), g(fs), k)
            o['jit' + ''.join(map(str, od))] = y
        return o
    def jit64(x, b, c_, s, k):
        gray = (x * data.GRAY).sum(1, keepdim=True)
        return (x * b if k == 0 else c_ * x + (1 - c_) * gray.mean((2, 3), keepdim=True) if k == 1 else s * x + (1 - s) * gray).clamp(0, 1)
    case(file, f's{S}', {'x': (x, 'image in [0,1]'), 'dy': (T(dy), 'top of the padded crop (f32)'), 'dx': (T(dx), 'left of the padded crop'), 't2': (T(t2), 'top of the view-2 window'), 'l3': (T(l3), 'left of the view-3 window'), 't4': (T(t4), 'top, view 4'), 'l4': (T(l4), 'left, view 4'), 'fb': (fb, 'brightness factor'), 'fc': (fc, 'contrast factor'), 'fs': (fs, 'saturation factor')},
         f, {'base': 'zero-padded random crop', 'v2': 'c x S window resized', 'v3': 'S x c window resized', 'v4': 'c x c window resized', 'jit012': 'base after brightness, contrast, saturation, clamp each', 'jit210': 'base after saturation, contrast, brightness'}, dict(pad=pad, c=c))

# =============================================================== write
# whole-model files: smooth the per-tensor luck with the group's worst error, and floor at 1e-5
grp = {}
for r in ROWS:
    if r[3] == 'out' and r[0].startswith(('model', 'distill')) and r[9] is not None:
        g = (r[0], r[1].split('.')[0]); grp[g] = max(grp.get(g, 0), r[7])
for i, r in enumerate(ROWS):
    g = (r[0], r[1].split('.')[0])
    if r[3] == 'out' and g in grp:
        r = list(r)
        if r[9] is not None: r[9] = float(f'{max(8 * r[7], 2 * grp[g], 1e-5):.1e}'); r[8] = float(f'{max(8 * r[6], r[9] * r[5], 1e-7):.1e}')
        else: r[8] = max(r[8], 5e-6)
        ROWS[i] = tuple(r)
tol = {}
for fn, d in FILES.items():
    save_file(d, f'{OUT}/{fn}', metadata=META.get(fn) or {'note': 'see GOLDEN.md'})
for (f_, n, sh, kind, m, mx, ea, er, at, rt) in ROWS:
    if kind == 'out': tol.setdefault(f_, {})[n] = {'max_abs_ref': mx, 'f32_abs_err': ea, 'f32_rel_l2': er, 'atol': at, 'rel_l2_tol': rt}
json.dump(tol, open(OUT + '/tolerances.json', 'w'), indent=0)
tot = sum(os.path.getsize(f'{OUT}/{f}') for f in FILES); print('total MB', tot / 1e6, {f: round(os.path.getsize(f'{OUT}/{f}') / 1e6, 2) for f in FILES}, 'tensors', len(ROWS))
