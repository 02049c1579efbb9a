"""Compile the kernels for an H100 or H200, which takes no such device; print what their PTX holds, as JSON.

Run in a process of its own, without TRITON_INTERPRET: `python -m tests.triton_compiles`.
"""

import json
import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from dataeff.ops import _triton

WIDE = "i64"
MOVES = {"x": "*i16", "y": "*i16", "ids": "*i32", "keep": "i32", "width": "i32"}
CHOICES = {
    "out": "*i32", "moment": "*i64", "always": "*u8", "valid": "*u8", "weights": "*fp32",
    "batch": "i32", "seq": "i32", "keep": "i32", "prefix": "i32", "first_row": "i32",
}  # fmt: skip


def compiled(kernel, types, constants, **options):
    """What the PTX loads, stores, divides and fuses; other arguments are int64, and all are aligned."""
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, WIDE) for name in names}
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if name not in constants},
    )
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert len(binary.asm["cubin"]) > 0
    return sorted(set(re.findall(r"(?:(?:ld|st)\.global|div\.\w+\.f|fma)\S+", binary.asm["ptx"])))


def main():
    """One entry a kernel."""
    found = {}
    for gather in (True, False):
        constants = {
            "GATHER": gather,
            "TOKENS": 4,
            "WIDTH": 1024,
            "x_number": 1,
            "y_number": 1,
            "ids_token": 1,
        }
        found["gather" if gather else "write"] = compiled(
            _triton._move, MOVES, constants, enable_fp_fusion=False
        )
    for name, masks, block, whole in (
        ("plain", False, 8192, True),
        ("plain in pieces", False, 8192, False),
        ("all masks", True, 1024, True),
    ):
        constants = {"LAYERED": True, "WIDTH": 64 if masks else 32, "BLOCK": block, "WHOLE": whole}
        constants |= {"MOMENT": 2 if masks else 0, "AFTER": masks}
        constants |= dict.fromkeys(("PREFIX", "ALWAYS", "VALID", "WEIGHTS"), masks)
        found[name] = compiled(_triton._choose, CHOICES, constants, enable_fp_fusion=False)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main()
