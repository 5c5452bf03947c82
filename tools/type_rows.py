#!/usr/bin/env python3
"""Which operands of ONNX operators share the type of the result, and in which version a low type is one of them, from
the schemas of the package onnx.

usage: tools/type_rows.py > frontend/export/type_rows.inc
needs onnx; a row for each version that differs from the one before it
"""
import onnx
import onnx.defs

FLOAT, F16, BF16 = "tensor(float)", "tensor(float16)", "tensor(bfloat16)"
# What decides control flow or takes positions, random numbers and quantised values keeps f32.
LEFT_OUT = {"If", "Loop", "Scan", "RoiAlign", "MaxRoiPool", "Range", "Celu", "QuantizeLinear", "DequantizeLinear",
            "DynamicQuantizeLinear", "NonMaxSuppression", "OneHot", "EyeLike", "Bernoulli", "Multinomial", "Cast",
            "CastLike", "BitCast", "Constant", "ConstantOfShape"}
LEFT_OUT_BEGINNINGS = ("Sequence", "SplitToSequence", "ConcatFromSequence", "Optional", "Random", "QLinear", "Mel",
                       "Hann", "Hamming", "Blackman")
# Operands of another type variable that are activations beside the first.
FOLLOWING = {"Attention", "LinearAttention", "RMSNormalization"}


def row(schema):
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    types = lambda parameter: allowed.get(parameter.type_str, {parameter.type_str})
    leading = [p for p in [*schema.outputs[:1], *schema.inputs] if FLOAT in types(p)]
    if not leading or not schema.inputs:
        return None
    variable = leading[0].type_str

    def mark(parameter):
        if parameter.type_str == variable:
            return "T"
        return "U" if schema.name in FOLLOWING and F16 in types(parameter) and FLOAT in types(parameter) else "-"

    operands = "".join(map(mark, schema.inputs))
    if str(schema.inputs[-1].option).endswith("Variadic"):
        operands += "*"
    results = "".join(map(mark, schema.outputs))
    if str(schema.outputs[-1].option).endswith("Variadic"):
        results += "*"
    return (F16 in types(leading[0]), BF16 in types(leading[0]), operands, results)


def main():
    print(f"// Made by tools/type_rows.py from the schemas of onnx {onnx.__version__}: operator, the version it holds from, whether the")
    print("// type may be f16 and bf16, operands and results: T of that type, U of one that follows it, - of another.")
    known = {}
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == "" and not s.deprecated and s.outputs]
    for schema in sorted(schemas, key=lambda s: (s.name, s.since_version)):
        if schema.name in LEFT_OUT or schema.name.startswith(LEFT_OUT_BEGINNINGS):
            continue
        found = row(schema)
        if found and known.get(schema.name) != found:
            f16, bf16, operands, results = found
            print(f'{{"{schema.name}", {schema.since_version}, {str(f16).lower()}, {str(bf16).lower()}, "{operands}", "{results}"}},')
            known[schema.name] = found


if __name__ == "__main__":
    main()
