"""Commands of NVIDIA's own tools that reproduce a plan from the bundle's graph, without msdm."""

from __future__ import annotations

from msdm_engine.bundle.plan_spec import PlanSpec
from msdm_engine.bundle.reader import Bundle
from msdm_export.plans.profiles import input_shapes


def polygraphy_command(bundle: Bundle, plan: PlanSpec) -> str:
    """``polygraphy convert`` with the plan's shapes, target and options."""
    spec = bundle.in_precision(plan.precision)[plan.graph]
    words = ["polygraphy", "convert", spec.file, "--convert-to", "trt", "-o", plan.file]
    for option, shapes in zip(("min", "opt", "max"), _shapes(bundle, plan), strict=True):
        words += [f"--trt-{option}-shapes", *(f"{name}:[{','.join(map(str, s))}]" for name, s in shapes.items())]
    if plan.options.get("level") is not None:
        words += ["--builder-optimization-level", str(plan.options["level"])]
    if plan.options.get("workspace_mib") is not None:
        words += ["--pool-limit", f"workspace:{plan.options['workspace_mib']}M"]
    words += ["--max-aux-streams", "0"] + ["--strip-plan"] * bool(plan.options.get("stripped"))
    if plan.backend == "tensorrt-rtx":
        digits = plan.target.removeprefix("sm_")
        words += ["--compute-capabilities", f"{digits[:-1]}.{digits[-1]}"]
        words.insert(0, "POLYGRAPHY_USE_TENSORRT_RTX=1")
    return " ".join(words)


def trtexec_command(bundle: Bundle, plan: PlanSpec) -> str:
    """``trtexec`` (``tensorrt_rtx`` in TensorRT for RTX's own archive) with the same."""
    spec = bundle.in_precision(plan.precision)[plan.graph]
    words = ["tensorrt_rtx" if plan.backend == "tensorrt-rtx" else "trtexec"]
    words += [f"--onnx={spec.file}", f"--saveEngine={plan.file}", "--skipInference", "--maxAuxStreams=0"]
    for option, shapes in zip(("min", "opt", "max"), _shapes(bundle, plan), strict=True):
        words.append(f"--{option}Shapes=" + ",".join(f"{name}:{'x'.join(map(str, s))}" for name, s in shapes.items()))
    if plan.options.get("level") is not None:
        words.append(f"--builderOptimizationLevel={plan.options['level']}")
    if plan.options.get("workspace_mib") is not None:
        words.append(f"--memPoolSize=workspace:{plan.options['workspace_mib']}M")
    words += ["--stripWeights"] * bool(plan.options.get("stripped"))
    if plan.backend == "tensorrt-rtx":
        digits = plan.target.removeprefix("sm_")
        words.append(f"--computeCapabilities={digits[:-1]}.{digits[-1]}")
    else:
        words.append("--stronglyTyped")
    return " ".join(words)


def _shapes(bundle: Bundle, plan: PlanSpec) -> list[dict[str, tuple[int, ...]]]:
    spec = bundle.in_precision(plan.precision)[plan.graph]
    return [
        input_shapes(plan.graph, spec, {name: values[i] for name, values in plan.profile.items()}) for i in range(3)
    ]
