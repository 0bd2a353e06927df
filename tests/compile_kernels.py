"""Compiles every Triton kernel for a GPU that need not be there, and prints what its machine code holds, as JSON.

    python tests/compile_kernels.py 90

The interpreter does not check what the compiler does: types carried around loops, layouts, which accesses are vectors.
To be run in a process of its own, without TRITON_INTERPRET.
"""

from __future__ import annotations

import json
import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from neuralrecon.ops.adam import _triton as adam
from neuralrecon.ops.composite import _triton as composite
from neuralrecon.ops.hash_encode import _triton as hash_encode
from neuralrecon.ops.hash_encode import _triton_kernels as encoding
from neuralrecon.ops.march import _triton as march
from neuralrecon.ops.sdf_query import _triton as sdf_query

INTEGERS = {"n", "n_rays", "n_features", "mask", "width", "rows", "nx", "ny", "nz"}
OTHERS = {
    "layout": "*i32",
    "ray_starts": "*i64",
    "starts": "*i64",
    "longs": "*i64",
    "cells": "*u8",
    "reach": "fp32",
    "step": "fp32",
    **dict.fromkeys(("keep_mean", "keep_variance", "by_mean", "by_variance", "eps"), "fp32"),
}
ENCODE = {"F": 2, "BLOCK": hash_encode.BLOCK}
MARCH = {"BAND": march.BAND, "INSIDE": march.INSIDE, "BLOCK": march.BLOCK}
ONE_WARP = {"num_warps": 1}
EXACT = {"num_warps": 1, "enable_fp_fusion": False}
KERNELS = {
    "encode": (encoding.encode, {**ENCODE, "WITH_JACOBIAN": True}, {}),
    "encode features": (encoding.encode, {**ENCODE, "WITH_JACOBIAN": False}, {}),
    "encode backward": (encoding.encode_backward, {**ENCODE, "WITH_JACOBIAN": True}, {}),
    "encode features backward": (encoding.encode_backward, {**ENCODE, "WITH_JACOBIAN": False}, {}),
    "encode backward of product": (encoding.encode_backward_of_product, ENCODE, {}),
    "activate": (sdf_query._activate, {"BLOCK": sdf_query.BLOCK}, {}),
    "pull": (encoding.pull, {"BLOCK": hash_encode.BLOCK}, {}),
    "push": (sdf_query._push, {"BLOCK": sdf_query.BLOCK}, {}),
    "march count": (march._walk, {**MARCH, "FILL": False}, EXACT),
    "march fill": (march._walk, {**MARCH, "FILL": True}, EXACT),
    "adam": (adam._step, {"BLOCK": adam.BLOCK}, {}),
    "composite": (composite._forward, {"BLOCK": composite.BLOCK}, ONE_WARP),
    "composite backward": (composite._backward, {"BLOCK": composite.BLOCK}, ONE_WARP),
}


def signature(name: str, constants: dict[str, int]) -> str:
    if name in constants:
        return "constexpr"
    return "i32" if name in INTEGERS else OTHERS.get(name, "*fp32")


def counts(kernel: triton.JITFunction, constants: dict[str, int], options: dict, capability: int) -> dict[str, int]:
    types = {name: signature(name, constants) for name in kernel.arg_names}
    # pointers are aligned to 16 bytes, as torch's are, except those to rows of an array, which shift with its width
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
    code = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm
    words = {"fma": "fma.rn.f32", "atomics": "atom.", "pairs": ".add.v2.f32", "barriers": "bar.sync"}
    return {"bytes": len(code["cubin"]), **{key: code["ptx"].count(word) for key, word in words.items()}}


if __name__ == "__main__":
    found = {name: counts(*given, int(sys.argv[1])) for name, given in KERNELS.items()}
    sys.stdout.write(json.dumps(found))
