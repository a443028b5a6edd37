"""The reference denoiser in PyTorch, on the CPU in float32 and on a GPU in float32 and float16."""

from __future__ import annotations

from typing import Any

import numpy as np

from msdm_engine.bundle.reader import reference_bundle
from msdm_engine.sampling.noise import gaussian

SIZE_PX, BATCH = 128, 8
#: Relative L2 error of the denoised estimate. Float32: order of summation through some seventy layers. Float16: its
#: roundoff, 5e-4, grows with the square root of the layers; ten times that is still invisible in eight bits.
TOLERANCES = {"float32": 1e-3, "float16": 1e-2}


def compare(torch: Any) -> dict[str, Any]:
    """Errors against the CPU, and milliseconds a step by CUDA events."""
    from msdm_export.graphs import example_conditions
    from msdm_train.model.conditioner import Conditions, Context
    from msdm_train.model.msdm import MSDM
    from msdm_train.training.from_bundle import read_bundle

    torch.manual_seed(0)
    info, weights, _ = read_bundle(reference_bundle())
    model = MSDM(info.model).eval()
    model.load_state_dict(weights)
    with torch.no_grad():
        context = model.conditioner(Conditions(**example_conditions(model.config, BATCH, SIZE_PX, SIZE_PX)))
        noise = np.stack([gaussian(1, i, 0, model.config.state_channels, SIZE_PX, SIZE_PX) for i in range(BATCH)])
        x, sigma = torch.from_numpy(noise), torch.tensor([1.0])
        expected = model(x, sigma, context)
        model = model.cuda()
        features = tuple(tensor.cuda() for tensor in context.map_features)
        keys, values, bias, pooled = (tensor.cuda() for tensor in context[:4])
        there = Context(keys, values, bias, pooled, features)
        results: dict[str, Any] = {"gpu": torch.cuda.get_device_name(0), "batch": BATCH, "size_px": SIZE_PX}
        for name, dtype in (("float32", torch.float32), ("float16", torch.float16)):
            with torch.autocast("cuda", dtype=dtype, enabled=dtype != torch.float32):

                def step() -> Any:
                    return model(x.cuda(), sigma.cuda(), there)

                found = step().float().cpu()
                error = float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))
                assert error < TOLERANCES[name], f"{name} on the GPU is {error:.2e} from float32 on the CPU"
                results[name] = {"relative_l2": error, "milliseconds": _milliseconds(torch, step)}
    return results


def _milliseconds(torch: Any, step: Any, repeats: int = 20) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        step()
    begin.record()
    for _ in range(repeats):
        step()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / repeats


def gemm_seconds(torch: Any, side: int, repeats: int = 20) -> float:
    """One product of two half-precision matrices, the matrix peak of this GPU as PyTorch reaches it."""
    a, b = (torch.randn(side, side, device="cuda", dtype=torch.float16) for _ in range(2))
    return _milliseconds(torch, lambda: a @ b, repeats) / 1e3
