"""Add model_views.safetensors and its tolerances to a folder that make_golden.py has written: python make_views.py FOLDER.
Training steps whose rows are a batch and further views of some of its images, with joint labels, unequal weights of the
losses, and a bank of which only recently written rows count. References and tolerances as in make_golden.py."""
import json, math, os, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numpy as np, torch, torch.nn.functional as F
from safetensors.torch import save_file
import ref
torch.set_num_threads(1)
OUT = sys.argv[1]; FILE = 'model_views.safetensors'; EPS = 2.0 ** -24
WIDTHS, CLASSES, ROT, B, E, VIEWS, S, EMBD = (6, 8, 10, 12), 3, 4, 7, 3, 3, 16, 8
IMAGES, RECENT, PLACES, STEPS, LR = 30, 12, 11, 3, .02
SET = dict(tau=.3, gamma=1., weight_class=.7, weight_equivariance=.4, weight_invariance=1.3, bank_rate=.6)
rng = np.random.default_rng(211)
N = lambda *s: torch.from_numpy(rng.standard_normal(s).astype(np.float32))
image, labels = N(B, 3, S, S), torch.from_numpy(rng.integers(0, CLASSES, B))
# Rows: the images plain, then VIEWS - 1 sets of further views of the first E.
slots = list(range(B)) + [i for _ in range(VIEWS - 1) for i in range(E)]
drawn = [rng.permutation(np.arange(1, ROT))[:VIEWS - 1] for _ in range(E)]
ids = [0] * B + [int(drawn[i][j]) for j in range(VIEWS - 1) for i in range(E)]
x = torch.stack([torch.rot90(image[s], k, (1, 2)) for s, k in zip(slots, ids)])
order = rng.permutation(IMAGES)
idx = torch.from_numpy(order[:B].copy())
# What was written before: some rows twice, three of the batch's, more than the recent ones.
writes = [int(v) for v in np.concatenate([order[5:20], order[9:14], order[2:5]])]
bank = torch.from_numpy(ref.bank_init(IMAGES, EMBD, rng))
net0 = ref.init_state(ref.Net(WIDTHS, CLASSES * ROT, ROT, EMBD), 211, fancy=True)
state = lambda n: {k: v.detach().clone() for k, v in n.state_dict().items() if v.dtype.is_floating_point}
sd = state(net0)


def recent(written):
    """The last RECENT rows that were written, each once, without the batch's."""
    seen = []
    for row in reversed(written):
        if row not in seen and len(seen) < RECENT:
            seen.append(row)
    return [row for row in seen if row not in idx.tolist()]


def rows_nce(anchor, other, neg, tau):
    a, o, n = (v / (v.norm(dim=1, keepdim=True) + 1e-6) for v in (anchor, other, neg))
    p = torch.exp((a * o).sum(1) / tau)
    return -torch.log(p / (p + torch.exp(o @ n.T / tau).sum(1) + 1e-6))


def run(dt, cl, xx):
    net = ref.Net(WIDTHS, CLASSES * ROT, ROT, EMBD); net.load_state_dict(sd, strict=False); net = net.to(dt).train(); xx = xx.to(dt)
    if cl: net = net.to(memory_format=torch.channels_last); xx = xx.contiguous(memory_format=torch.channels_last)
    bk, written, o = bank.to(dt), list(writes), {}
    opt = torch.optim.SGD(net.parameters(), LR, momentum=.9, weight_decay=5e-4)
    target = torch.tensor([labels[s].item() + CLASSES * k for s, k in zip(slots, ids)])
    for step in range(1, STEPS + 1):
        feat, cls, eq, z = net(xx)
        known = torch.tensor([float(i in written) for i in idx.tolist()], dtype=dt)
        anchor = torch.cat([bk[idx], z[slots[B:]]])
        terms = rows_nce(anchor, z, bk[recent(written)], SET['tau']) * torch.cat([known, torch.ones(len(slots) - B, dtype=dt)])
        L = {'ce': F.cross_entropy(cls, target), 'eq': F.cross_entropy(eq, torch.tensor(ids)), 'inv': terms.sum() / len(slots)}
        L['total'] = SET['weight_class'] * L['ce'] + SET['weight_equivariance'] * L['eq'] + SET['weight_invariance'] * L['inv']
        z0, keep = z[:B].detach(), (SET['bank_rate'] * known)[:, None]
        bk = bk.clone(); bk[idx] = keep * bk[idx] + (1 - keep) * z0
        written += idx.tolist()
        opt.zero_grad(); L['total'].backward()
        if step == 1:
            for k, v in zip(('feat', 'cls', 'eq', 'inv'), (feat, cls, eq, z)): o['out.' + k] = v
            for k, v in net.named_parameters(): o['grad.' + k] = v.grad.clone()
            o['accuracy'] = (cls.argmax(1) == target).to(dt).mean()
        for k, v in L.items(): o[('loss.' if step == 1 else f'loss_step{step}.') + k] = v
        opt.step()
        if step in (1, STEPS):
            for k, v in state(net).items(): o[f's{step}.{k}'] = v
            o[f's{step}.bank'] = bk.clone()
    return {k: v.detach() for k, v in o.items()}


pg = torch.Generator().manual_seed(1)
jig = lambda: x * (1 + 6e-8 * torch.randn(x.shape, generator=pg))
want = run(torch.float64, False, x)
runs = [run(torch.float32, c, x) for c in (False, True)] + [run(torch.float32, c, jig()) for c in (False, True, False, True)]
want['x'] = x.double(); [r.update(x=x) for r in runs]
group = lambda k: k.split('.')[0]
stats, worst = {}, {}
for k, v in want.items():
    v = v.double(); mx = v.abs().max().item(); n = v.norm().item()
    ea = max((r[k].double() - v).abs().max().item() for r in runs)
    er = max((r[k].double() - v).norm().item() / max(n, 1e-300) for r in runs)
    zero = n / math.sqrt(max(1, v.numel())) < 1e-8
    stats[k] = (mx, ea, er, zero)
    if not zero: worst[group(k)] = max(worst.get(group(k), 0), er)
tol = {}
for k, (mx, ea, er, zero) in stats.items():
    rt = None if zero else float(f'{max(8 * er, 2 * worst[group(k)], 1e-5):.1e}')
    at = max(8 * ea, 8 * EPS * mx, 1e-7, 5e-6) if zero else max(8 * ea, rt * mx, 1e-7)
    tol[k] = {'max_abs_ref': mx, 'f32_abs_err': ea, 'f32_rel_l2': er, 'atol': float(f'{at:.1e}'), 'rel_l2_tol': rt}
given = {'image': image, 'labels': labels, 'transform_ids': torch.tensor(ids), 'idx': idx, 'writes': torch.tensor(writes), 'bank': bank,
         **{'init.' + k: v for k, v in sd.items()}}
tensors = {k: v.to(torch.float32).contiguous().clone() for k, v in {**given, **want}.items()}
meta = dict(SET, lr=LR, momentum=.9, weight_decay=5e-4, viewed=E, class_rotations=ROT, bank_recent=RECENT, negatives=PLACES, steps=STEPS)
save_file(tensors, f'{OUT}/{FILE}', metadata={k: str(v) for k, v in meta.items()})
all_tol = json.load(open(f'{OUT}/tolerances.json')); all_tol[FILE] = tol
json.dump(all_tol, open(f'{OUT}/tolerances.json', 'w'), indent=0)
print({k: round(v.item(), 4) for k, v in want.items() if k.startswith('loss') or k == 'accuracy'}, 'negatives', len(recent(writes)), 'largest relative error', max(worst.values()))
