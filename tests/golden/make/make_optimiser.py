"""Write optimiser.safetensors and model_optimiser.safetensors into a folder, and their rows into its tolerances.json:
python make_optimiser.py FOLDER, after make_golden.py. Everything expected is what PyTorch's own classes compute in
float64 from the stored float32 inputs: SGD, clip_grad_norm_, AveragedModel, cross_entropy, lr_scheduler. The same in
float32 gives the error figures behind the tolerances."""
import json, math, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np, torch, torch.nn.functional as F
from safetensors.torch import save_file
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import ChainedScheduler, CosineAnnealingLR, LinearLR, MultiStepLR, OneCycleLR, SequentialLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
import ref
torch.set_num_threads(1)
OUT = sys.argv[1] if len(sys.argv) > 1 else 'golden'
EPS = 2.0 ** -24
FILES, META, TOL = {}, {}, {}
rng = np.random.default_rng(20260)
N = lambda *s, sc=1.0: torch.from_numpy((sc * rng.standard_normal(s)).astype(np.float32))
I = lambda hi, *s: torch.from_numpy(rng.integers(0, hi, s))


def given(file, name, tensor):
    FILES.setdefault(file, {})[name] = tensor.detach().float().contiguous().clone()


def expected(file, name, r64, r32s, k):
    """Stores a float64 result and its tolerance by the rule of GOLDEN.md."""
    given(file, name, r64)
    r64 = r64.detach().double()
    most, norm = r64.abs().max().item(), r64.norm().item()
    err = max((r.detach().double() - r64).abs().max().item() for r in r32s)
    rel = max((r.detach().double() - r64).norm().item() / max(norm, 1e-300) for r in r32s)
    zero = norm / math.sqrt(max(1, r64.numel())) < 1e-8
    TOL.setdefault(file, {})[name] = [most, err, rel, max(k * err, 8 * EPS * most, 1e-7), None if zero else max(k * rel, 1e-6)]


def case(name, inputs, compute, settings):
    for part, tensor in inputs.items(): given(O, f'{name}.{part}', tensor)
    convert = lambda dt: {k: t.to(dt).clone() if t.is_floating_point() else t for k, t in inputs.items()}
    r64, r32 = compute(convert(torch.float64)), compute(convert(torch.float32))
    for part, tensor in r64.items(): expected(O, f'{name}.{part}', tensor, [r32[part]], 16)
    META.setdefault(O, {})[name] = json.dumps(settings)


# =============================================================== 1. each operation alone
O = 'optimiser.safetensors'
def sgd(nesterov):
    def compute(d):
        p = torch.nn.Parameter(d['p'].clone()); o = {}
        opt = torch.optim.SGD([p], lr=.05, momentum=.9, weight_decay=.01, nesterov=nesterov)
        for i in range(3):
            p.grad = d[f'g{i}'].clone(); opt.step()
            o[f'p{i + 1}'] = p.detach().clone(); o[f'v{i + 1}'] = opt.state[p]['momentum_buffer'].clone()
        return o
    return compute
for name, nesterov in (('sgd_plain', False), ('sgd_nesterov', True)):
    case(name, {'p': N(101), **{f'g{i}': N(101) for i in range(3)}}, sgd(nesterov), dict(lr=.05, momentum=.9, weight_decay=.01, nesterov=float(nesterov)))

for i, (rows, columns, sc, smoothing) in enumerate([(12, 10, 1., .1), (9, 64, 20., .2), (5, 2, 3., .5)]):
    y = I(columns, rows)
    def compute(d, y=y, smoothing=smoothing):
        x = d['x'].requires_grad_(True); loss = F.cross_entropy(x, y, label_smoothing=smoothing); loss.backward()
        return {'loss': loss, 'gx': x.grad}
    case(f'ce_smooth{i}', {'x': N(rows, columns, sc=sc), 'y': y}, compute, dict(smoothing=smoothing))

for i, (n, sc) in enumerate([(7, .1), (997, 1.), (3000, .05)]):
    def compute(d):
        # As parameters have: several tensors, one norm.
        parts = [torch.nn.Parameter(t) for t in d['x'].clone().split(max(1, n // 3))]
        for part in parts: part.grad = part.detach().clone()
        norm = clip_grad_norm_(parts, 2.0)
        return {'norm': norm, 'y': torch.cat([part.grad for part in parts])}
    case(f'clip{i}', {'x': N(n, sc=sc)}, compute, dict(max_norm=2.0))

def compute(d):
    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__(); self.w = torch.nn.Parameter(d['x0'].clone())
    model = Holder(); average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(.9), use_buffers=True); o = {}
    for i in range(4):
        with torch.no_grad(): model.w.copy_(d[f'x{i}'])
        average.update_parameters(model); o[f'y{i + 1}'] = average.module.w.detach().clone()
    return o
case('average', {f'x{i}': N(101) for i in range(4)}, compute, dict(decay=.9))

# =============================================================== 2. learning rates by step
def rates(make, steps, lr):
    p = torch.nn.Parameter(torch.zeros(1)); opt = torch.optim.SGD([p], lr=lr); schedule = make(opt); all = []
    for _ in range(steps):
        all.append(opt.param_groups[0]['lr']); opt.step(); schedule.step()
    return torch.tensor(all, dtype=torch.float64)
def warm(opt, w): return LinearLR(opt, start_factor=1 / (w + 1), total_iters=w)
def steps_(opt, at, w): return ChainedScheduler([MultiStepLR(opt, at, .1)] + ([warm(opt, w)] if w else []))
def cosine(opt, n, w):
    if w == 0: return CosineAnnealingLR(opt, T_max=n)
    return SequentialLR(opt, [warm(opt, w), CosineAnnealingLR(opt, T_max=n - w)], milestones=[w])
def schedule(name, make, settings):
    n, lr = settings['steps'], settings['lr']
    expected(O, f'{name}.lr', rates(make, n, lr), [rates(make, n, lr).float()], 16)
    META[O][name] = json.dumps(settings)
schedule('schedule_steps', lambda o: steps_(o, [12, 16], 0), dict(schedule='steps', steps=20, lr=.05, warmup=0., decay_at=[12, 16]))
schedule('schedule_steps_warm', lambda o: steps_(o, [12, 16], 5), dict(schedule='steps', steps=20, lr=.05, warmup=.25, decay_at=[12, 16]))
schedule('schedule_cosine', lambda o: cosine(o, 40, 0), dict(schedule='cosine', steps=40, lr=.1, warmup=0., decay_at=[]))
schedule('schedule_cosine_warm', lambda o: cosine(o, 40, 4), dict(schedule='cosine', steps=40, lr=.1, warmup=.1, decay_at=[]))
schedule('schedule_cosine_warm1', lambda o: cosine(o, 7, 1), dict(schedule='cosine', steps=7, lr=.3, warmup=.1, decay_at=[]))
for n in (4, 10, 37): schedule(f'schedule_one_cycle{n}', lambda o: OneCycleLR(o, max_lr=.1, total_steps=n, cycle_momentum=False), dict(schedule='one-cycle', steps=n, lr=.1, warmup=0., decay_at=[]))

# =============================================================== 3. all of it on a network: each option alone, and all
T = 'model_optimiser.safetensors'
WIDTHS, CLASSES, M, B, S, NB, K, LR, DECAY = (4, 4, 6, 8), 5, 4, 6, 16, 40, 16, .01, .05
VARIANTS = {
    'plain': {}, 'nesterov': dict(nesterov=1.), 'nodecay': dict(decay_norm=0.), 'clip': dict(clip_norm=1.), 'smooth': dict(label_smoothing=.2),
    'average': dict(average=.7), 'all': dict(nesterov=1., decay_norm=0., clip_norm=1., label_smoothing=.2, average=.7, schedule=1.)}
STEPS = 4
net0 = ref.init_state(ref.Net(WIDTHS, CLASSES, M, 64), 7, fancy=True)
state0 = {k: v.clone() for k, v in net0.state_dict().items() if v.is_floating_point()}
x = ref.all_copies([N(B, 3, S, S)]); labels = I(CLASSES, B); bank = torch.from_numpy(ref.bank_init(NB, 64, rng)).float()
idx = torch.from_numpy(rng.permutation(NB)[:B].copy()); neg = torch.from_numpy(ref.sample_negatives(NB, idx.numpy(), K, rng).copy())
for name, t in dict(x=x, labels=labels, transform_ids=torch.arange(M).repeat_interleave(B), bank=bank, idx=idx, neg_idx=neg).items(): given(T, name, t)
for name, t in state0.items(): given(T, 'init.' + name, t)
given(T, 'all_lr', rates(lambda o: cosine(o, STEPS, 1), STEPS, LR))

def run(variant, dt, channels_last, x):
    option = VARIANTS[variant].get; o = {}
    net = ref.Net(WIDTHS, CLASSES, M, 64); net.load_state_dict(state0, strict=False); net = net.to(dt).train(); x = x.to(dt)
    if channels_last: net = net.to(memory_format=torch.channels_last); x = x.contiguous(memory_format=torch.channels_last)
    flat = [p for p in net.parameters() if p.ndim <= 1]; rest = [p for p in net.parameters() if p.ndim > 1]
    groups = [dict(params=rest, weight_decay=DECAY), dict(params=flat, weight_decay=DECAY * option('decay_norm', 1.))]
    opt = torch.optim.SGD(groups, lr=LR, momentum=.9, nesterov=bool(option('nesterov')))
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(option('average')), use_buffers=True) if option('average') else None
    schedule = cosine(opt, STEPS, 1) if option('schedule') else None
    bk = bank.to(dt)
    for s in range(1, STEPS + 1):
        out = net(x); losses = ref.ier_loss(out, labels, B, M, bk, idx, neg)
        losses['ce'] = F.cross_entropy(out[1], labels.repeat(M), label_smoothing=option('label_smoothing', 0.))
        losses['total'] = losses['ce'] + losses['eq'] + losses['inv']
        bk = ref.bank_update(bk, idx, out[3][:B].detach())
        opt.zero_grad(); losses['total'].backward()
        if option('clip_norm'): losses['grad_norm'] = clip_grad_norm_(net.parameters(), option('clip_norm'))
        opt.step()
        if schedule: schedule.step()
        if average: average.update_parameters(net)
        for k, v in losses.items(): o[f'{variant}_loss{"" if s == 1 else f"_step{s}"}.{k}'] = v
        if s == STEPS:
            for k, v in net.state_dict().items():
                if v.is_floating_point(): o[f'{variant}{s}.{k}'] = v
            if average:
                for k, v in average.module.state_dict().items():
                    if v.is_floating_point(): o[f'{variant}{s}.average.{k}'] = v
        o = {k: v.detach().clone().contiguous() for k, v in o.items()}
    return o
for variant in VARIANTS:
    noise = torch.Generator().manual_seed(1)
    jig = lambda: x * (1 + 6e-8 * torch.randn(x.shape, generator=noise))
    r64 = run(variant, torch.float64, False, x)
    r32 = [run(variant, torch.float32, c, x) for c in (False, True)] + [run(variant, torch.float32, c, jig()) for c in (False, True, False, True)]
    for k, v in r64.items(): expected(T, k, v, [r[k] for r in r32], 8)
META[T] = {k: str(v) for k, v in dict(gamma=1., tau=1., lr=LR, momentum=.9, weight_decay=DECAY, bank_rate=.99).items()}
META[T]['variants'] = json.dumps(VARIANTS)

# =============================================================== write
worst = {}
for name, (most, err, rel, atol, rtol) in TOL[T].items():
    if rtol is not None: worst[name.split('.')[0]] = max(worst.get(name.split('.')[0], 0), rel)
for name, row in TOL[T].items():
    most, err, rel = row[:3]
    if row[4] is None: row[3] = max(row[3], 5e-6)
    else: row[4] = max(8 * rel, 2 * worst[name.split('.')[0]], 1e-5); row[3] = max(8 * err, row[4] * most, 1e-7)
path = os.path.join(OUT, 'tolerances.json')
tol = json.load(open(path)) if os.path.exists(path) else {}
round2 = lambda v: None if v is None else float(f'{v:.1e}')
for file, rows in TOL.items():
    tol[file] = {n: {'max_abs_ref': m, 'f32_abs_err': e, 'f32_rel_l2': r, 'atol': round2(a), 'rel_l2_tol': round2(t)} for n, (m, e, r, a, t) in rows.items()}
    save_file(FILES[file], os.path.join(OUT, file), metadata=META[file])
    print(file, os.path.getsize(os.path.join(OUT, file)), 'bytes', len(FILES[file]), 'tensors', len(rows), 'outputs, worst rel', max(r for _, _, r, _, t in rows.values() if t is not None))
json.dump(tol, open(path, 'w'), indent=0)
