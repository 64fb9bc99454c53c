"""What do the GPU's kernels compile to? Needs no GPU: Triton brings NVIDIA's assembler.

Prints a row for each kernel, variant and architecture, as `kernels/README.md` has them: registers of a thread, bytes
that it spills, shared memory of a program, and how it reaches memory. A load that is vectorised fetches 16 bytes (`v4`)
or 8 (`v2`) a thread; a `red` is an atomic add whose result nobody waits for.

    python benchmarks/gpu_kernels.py
"""

import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

HEADER = (
    "| kernel | variant | GPU | registers | spilled bytes | shared bytes | vectorised loads | adds |\n"
    "|---|---|---|---|---|---|---|---|"
)
_POINTERS = {
    "sums": "*i32", "touched": "*u8", "order": "*i32", "bounds": "*i32", "limits": "*i32", "programs": "*i32",
    "bases": "*i64", "offsets": "*u32", "local": "*u16", "impacts": "*u8", "last": "*i64", "dense_starts": "*i32",
    "dense": "*i32", "dense_bytes": "*u8", "block_max": "*u8", "rows": "*u32", "allowed": "*i1", "found": "*i64",
    "counts": "*i32",
}  # fmt: skip
_ALIGNED = {*_POINTERS, "width"}  # PyTorch aligns what it allocates, and a width is a multiple of 32
_SPARSE = {"ABOVE_ZERO": True}, {"ABOVE_ZERO": False}
_DENSE = {**_SPARSE[0], "DENSE": True, "MASKED": False}
ADD_VARIANTS: dict[str, tuple[dict[str, bool], str]] = {
    "uint8, all above zero": (_SPARSE[0], "*u8"),
    "uint8": (_SPARSE[1], "*u8"),
    "int8": (_SPARSE[1], "*i8"),
}
KEEP_VARIANTS: dict[str, dict[str, bool]] = {
    "above zero, dense terms": _DENSE,
    "above zero, dense terms, mask": {**_DENSE, "MASKED": True},
    "above zero": {**_DENSE, "DENSE": False},
    "any sign": {**_SPARSE[1], "DENSE": False, "MASKED": False},
    "any sign, mask": {**_SPARSE[1], "DENSE": False, "MASKED": True},
}


def table() -> list[str]:
    """The rows, in Markdown."""
    from gossamer.kernels.sparse_dot_triton import ADD_WARPS, BLOCK, KEEP_WARPS, TILE
    from gossamer.kernels.sparse_dot_triton_kernels import add_runs, keep_best

    variants: list[tuple[Any, str, dict[str, Any], str, int]] = [
        (add_runs, name, {**constants, "BLOCK": BLOCK}, impacts, ADD_WARPS)
        for name, (constants, impacts) in ADD_VARIANTS.items()
    ]
    variants += [
        (keep_best, name, {**constants, "TILE": TILE}, "*u8", KEEP_WARPS)
        for name, constants in KEEP_VARIANTS.items()
    ]
    return [
        f"| `{kernel.fn.__name__}` | {name} | sm_{capability} | "
        + " | ".join(_compiled(kernel, constants, impacts, n_warps, capability))
        + " |"
        for kernel, name, constants, impacts, n_warps in variants
        for capability in (80, 90)
    ]


def _compiled(
    kernel: Any, constants: dict[str, Any], impacts: str, n_warps: int, capability: int
) -> tuple[str, ...]:
    """Registers, bytes spilled, shared memory, vectorised loads, atomic adds."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {**_POINTERS, "impacts": impacts}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names
    }
    aligned = [place for place, name in enumerate(kernel.arg_names) if name in _ALIGNED]
    source = ASTSource(
        kernel,
        signature,
        constexprs=constants,
        attrs={(place,): [["tt.divisibility", 16]] for place in aligned},
    )
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": n_warps})
    ptx = built.asm["ptx"]
    if f".target sm_{capability}" not in ptx:
        raise RuntimeError(f"the assembler did not take the architecture sm_{capability}")
    dump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(built.asm["cubin"])
        file.flush()
        command = [str(dump), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = {name: int(number) for name, number in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", usage)}
    loads = Counter(re.findall(r"\bld\.global\.(v\d)\.b32", ptx))
    adds = Counter(re.findall(r"\b(red|atom)\.global\S*\.add", ptx))
    return (
        str(used["REG"]),
        str(used["STACK"] + used["LOCAL"]),
        str(built.metadata.shared),
        ", ".join(f"{count} × {width}" for width, count in sorted(loads.items(), reverse=True)) or "none",
        ", ".join(f"{count} × {kind}" for kind, count in sorted(adds.items())),
    )


if __name__ == "__main__":
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "0")  # or Triton 3.9 warns
    print(HEADER, *table(), sep="\n")
