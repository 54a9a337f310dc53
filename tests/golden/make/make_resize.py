"""Write resize.safetensors into a folder, and its rows into its tolerances.json: python make_resize.py FOLDER, after
make_golden.py. adaptive_avg_pool2d of PyTorch in float64 on the stored float32 inputs; the same in float32 gives the error
figures behind the tolerances, by the rule of GOLDEN.md."""
import json, os, sys
import numpy as np, torch, torch.nn.functional as F
from safetensors.torch import save_file
torch.set_num_threads(1)
OUT, FILE, EPS, K = sys.argv[1], 'resize.safetensors', 2.0 ** -24, 16
rng = np.random.default_rng(625)
tensors, tol, meta = {}, {}, {}
for i, (shape, side) in enumerate([((2, 3, 32, 32), 20), ((2, 3, 28, 28), 18), ((1, 1, 84, 84), 53), ((1, 2, 9, 13), 4), ((2, 1, 16, 16), 16), ((2, 2, 7, 7), 1)]):
    name = f'adaptive{i}'
    x = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    want = F.adaptive_avg_pool2d(x.double(), side)
    runs = [F.adaptive_avg_pool2d(x, side), F.adaptive_avg_pool2d(x.contiguous(memory_format=torch.channels_last), side)]
    err = max((r.double() - want).abs().max().item() for r in runs)
    rel = max((r.double() - want).norm().item() / want.norm().item() for r in runs)
    most = want.abs().max().item()
    tensors[f'{name}.x'], tensors[f'{name}.y'] = x, want.float().contiguous()
    meta[name] = json.dumps({'side': side})
    tol[f'{name}.y'] = {'max_abs_ref': most, 'f32_abs_err': err, 'f32_rel_l2': rel, 'atol': float(f'{max(K * err, 8 * EPS * most, 1e-7):.1e}'),
                        'rel_l2_tol': float(f'{max(K * rel, 1e-6):.1e}')}
save_file(tensors, f'{OUT}/{FILE}', metadata=meta)
path = f'{OUT}/tolerances.json'
everything = json.load(open(path)); everything[FILE] = tol
json.dump(everything, open(path, 'w'), indent=0)
print({name: row['f32_rel_l2'] for name, row in tol.items()})
