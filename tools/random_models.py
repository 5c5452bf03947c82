"""Random ONNX models of many operators, with known shapes and without steps that rounding could leap over (no rounding, no comparisons
of computed values, no indices that values decide)."""
import math

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# They copy values and round none.
movements = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Split", "Concat", "Gather", "Expand", "Tile",
             "Pad", "DepthToSpace", "SpaceToDepth", "MaxPool", "Relu", "Abs", "Neg", "Max", "Min", "ReduceMax", "ReduceMin", "GatherElements",
             "GatherND", "TopK", "Trilu", "Where", "GlobalMaxPool", "Clip"}
OPSETS = [13, 15, 17, 18, 20, 21]
LARGEST_VALUE = 4096  # elements


class Maker:
    def __init__(self, generator):
        self.g = generator
        self.opset = int(generator.choice(OPSETS))
        self.nodes, self.weights, self.inputs, self.values = [], [], [], []  # values: (name, shape), of f32
        self.number = 0
        self.statistics = set()  # running ones: no weight of another node

    def name(self, stem):
        self.number += 1
        return f"{stem}_{self.number}"

    def below(self, n):
        return int(self.g.integers(n))

    def chance(self, p):
        return self.g.random() < p

    def constant(self, array):
        """An initializer, or a node Constant."""
        name = self.name("w" if array.dtype == np.float32 else "i")
        if array.size < 20 and self.chance(0.2):
            self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array), name="constant_" + name))
        else:
            self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape, scale=1.0, mean=0.0):
        """Of the same shape sometimes one that another node has."""
        if mean == 0 and self.chance(0.15):
            same = [t.name for t in self.weights if tuple(t.dims) == shape and t.data_type == TensorProto.FLOAT and t.name not in self.statistics]
            if same:
                return same[self.below(len(same))]
        return self.constant((mean + scale * self.g.standard_normal(shape)).astype(np.float32))

    def ints(self, *values):
        return self.constant(np.asarray(values, np.int64))

    def scalar(self):
        return self.constant(np.asarray(self.g.choice([0.5, 2.0, 0.1, 1.7, -0.3, 3.0, 1 / 3, 1e-3]), np.float32))

    def add(self, op, inputs, shape, **attributes):
        return self.add_several(op, inputs, [shape], **attributes)[0]

    def add_several(self, op, inputs, shapes, **attributes):
        outputs = [self.name("v") for _ in shapes]
        named = {} if self.chance(0.1) else {"name": self.name(op.lower())}
        self.nodes.append(helper.make_node(op, inputs, outputs, **named, **attributes))
        found = [(name, tuple(int(d) for d in shape)) for name, shape in zip(outputs, shapes)]
        self.values += [value for value in found if value[1] is not None]
        return found

    def hidden(self, op, inputs, **attributes):
        """A node whose result only the next ones read."""
        output = self.name("h")
        self.nodes.append(helper.make_node(op, inputs, [output], name=self.name(op.lower()), **attributes))
        return output

    def pick(self, rank=None, least=0):
        """A value, later ones more often."""
        fitting = [v for v in self.values if (rank is None or len(v[1]) == rank) and len(v[1]) >= least]
        if not fitting:
            return None
        return fitting[-1 - min(int(self.g.exponential(2.5)), len(fitting) - 1)]

    def positive(self, x, floor=0.5):
        """|x| + floor."""
        return self.hidden("Add", [self.hidden("Abs", [x[0]]), self.constant(np.asarray(floor, np.float32))])

rows = []


def row(weight=1):
    def register(function):
        rows.extend([function] * weight)
        return function
    return register


@row(6)
def unary(m):
    x = m.pick()
    ops = ["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Erf", "Softplus", "Softsign", "LeakyRelu", "Elu", "Selu", "HardSigmoid", "Identity", "Sin", "Cos", "Celu", "Atan"]
    if m.opset >= 14:
        ops.append("HardSwish")
    if m.opset >= 18:
        ops.append("Mish")
    if m.opset >= 20:
        ops.append("Gelu")
    m.add(ops[m.below(len(ops))], [x[0]], x[1])


@row(2)
def guarded_unary(m):
    x = m.pick()
    op = ["Log", "Sqrt", "Reciprocal", "Exp"][m.below(4)]
    inner = m.hidden("Clip", [x[0], m.constant(np.asarray(-4, np.float32)), m.constant(np.asarray(4, np.float32))]) if op == "Exp" else m.positive(x)
    m.add(op, [inner], x[1])


@row(6)
def binary(m):
    x = m.pick()
    same = [v for v in m.values if v[1] == x[1]]
    op = ["Add", "Sub", "Mul", "Max", "Min", "Div", "Mean", "Sum"][m.below(8)]
    how = m.below(4)
    if how == 0 or op in ("Mean", "Sum"):
        other = same[m.below(len(same))][0]
    elif how == 1:
        other = m.scalar()
    elif how == 2 and x[1]:
        other = m.weight(x[1][-1])
    else:
        shape = [d if m.chance(0.6) else 1 for d in x[1]]
        other = m.weight(*shape)
    if op == "Div":
        other = m.positive((other,))
    pair = [x[0], other]
    if op != "Div" and m.chance(0.3):
        pair.reverse()
    m.add(op, pair, x[1])


@row()
def powers(m):
    x = m.pick()
    exponent = [2.0, 3.0, 0.5, -0.5][m.below(4)]
    m.add("Pow", [x[0] if exponent in (2.0, 3.0) else m.positive(x), m.constant(np.asarray(exponent, np.float32))], x[1])


@row()
def chosen(m):
    x = m.pick()
    same = [v for v in m.values if v[1] == x[1]]
    condition = m.constant(m.g.random(x[1]) < 0.5)
    other = same[m.below(len(same))][0] if m.chance(0.5) else m.constant(np.asarray(-1e4 if m.chance(0.2) else 0.25, np.float32))
    m.add("Where", [condition, x[0], other], x[1])


@row()
def prelu(m):
    x = m.pick(least=2)
    if x:
        slope = (x[1][1],) + (1,) * (len(x[1]) - 2)
        m.add("PRelu", [x[0], m.weight(*slope, scale=0.3)], x[1])


@row()
def clipped(m):
    x = m.pick()
    m.add("Clip", [x[0], m.constant(np.asarray(-1.3, np.float32)), m.constant(np.asarray(0.7, np.float32))], x[1])


@row(6)
def matmul(m):
    x = m.pick(least=2)
    if not x:
        return
    inner, to = x[1][-1], int(m.g.choice([1, 3, 5, 8]))
    others = [v for v in m.values if len(v[1]) >= 2 and v[1][-2] == inner and v[1][:-2] == x[1][:-2] and v != x]
    if others and m.chance(0.3):
        other = others[m.below(len(others))]
        return m.add("MatMul", [x[0], other[0]], x[1][:-1] + other[1][-1:])
    out = m.add("MatMul", [x[0], m.weight(inner, to, scale=inner ** -0.5)], x[1][:-1] + (to,))
    if m.chance(0.5):
        m.add("Add", [out[0], m.weight(to)], out[1])


@row(4)
def gemm(m):
    x = m.pick(rank=2)
    if not x:
        return
    trans_a, trans_b, to = m.below(2) if m.chance(0.3) else 0, m.below(2), int(m.g.choice([2, 4, 7]))
    n, inner = (x[1][1], x[1][0]) if trans_a else x[1]
    shape = (to, inner) if trans_b else (inner, to)
    operands = [x[0], m.weight(*shape, scale=inner ** -0.5)]
    if m.chance(0.8):
        operands.append(m.weight(*[(to,), (1, to), (n, to), (1,)][m.below(4)]))
    extra = {"alpha": 0.7, "beta": 1.3} if m.chance(0.2) else {}
    m.add("Gemm", operands, (n, to), transA=trans_a, transB=trans_b, **extra)


@row()
def einsum(m):
    x = m.pick(rank=3)
    if x:
        b, n, d = x[1]
        m.add("Einsum", [x[0], m.weight(d, 4, scale=d ** -0.5)], (b, n, 4), equation="bnd,de->bne")


@row(4)
def convolution(m):
    x = m.pick(rank=4)
    if not x or min(x[1][2:]) < 3:
        return
    n, c, h, w = x[1]
    groups = c if m.chance(0.2) else 1
    to = c if groups == c else int(m.g.choice([2, 4, 6]))
    k, stride, pad = int(m.g.choice([1, 3])), int(m.g.choice([1, 2])), m.below(2)
    out = [(d + 2 * pad - k) // stride + 1 for d in (h, w)]
    operands = [x[0], m.weight(to, c // groups, k, k, scale=(c // groups * k * k) ** -0.5)] + ([m.weight(to)] if m.chance(0.7) else [])
    m.add("Conv", operands, (n, to, *out), kernel_shape=[k, k], strides=[stride] * 2, pads=[pad] * 4, group=groups)


@row()
def transposed_convolution(m):
    x = m.pick(rank=4)
    if x and math.prod(x[1]) < 600:
        n, c, h, w = x[1]
        m.add("ConvTranspose", [x[0], m.weight(c, 3, 2, 2, scale=c ** -0.5), m.weight(3)], (n, 3, 2 * h, 2 * w), kernel_shape=[2, 2], strides=[2, 2])


@row()
def window(m):
    x = m.pick(rank=4)
    if not x or min(x[1][2:]) < 2:
        return
    n, c, h, w = x[1]
    op = ["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"][m.below(4)]
    if op.startswith("Global"):
        return m.add(op, [x[0]], (n, c, 1, 1))
    m.add(op, [x[0]], (n, c, h // 2, w // 2), kernel_shape=[2, 2], strides=[2, 2])


@row(2)
def norm(m):
    x = m.pick(least=3)
    if not x:
        return
    c = x[1][1]
    op = ["BatchNormalization", "InstanceNormalization", "LpNormalization"][m.below(3)]  # the checker knows no MeanVarianceNormalization
    if op == "BatchNormalization" and math.prod(x[1]) > c:  # of one value a channel there is nothing to train
        statistics = [m.constant(values.astype(np.float32)) for values in (m.g.standard_normal(c), 0.5 + m.g.random(c))]
        m.statistics.update(statistics)
        m.add(op, [x[0], m.weight(c), m.weight(c), *statistics], x[1])
    elif op == "InstanceNormalization" and math.prod(x[1][2:]) > 1:
        m.add(op, [x[0], m.weight(c), m.weight(c)], x[1])
    elif op == "LpNormalization":
        m.add(op, [x[0]], x[1], axis=-1, p=2)


@row(2)
def layer_norm(m):
    x = m.pick(least=2)
    if not x or x[1][-1] < 2:
        return
    d = x[1][-1]
    if m.opset >= 17 and m.chance(0.6):
        return m.add("LayerNormalization", [x[0], m.weight(d), m.weight(d)], x[1], axis=-1)
    # Written out.
    mean = m.hidden("ReduceMean", [x[0], m.ints(-1)]) if m.opset >= 18 else m.hidden("ReduceMean", [x[0]], axes=[-1])
    centred = m.hidden("Sub", [x[0], mean])
    square = m.hidden("Pow", [centred, m.constant(np.asarray(2, np.float32))]) if m.chance(0.5) else m.hidden("Mul", [centred, centred])
    variance = m.hidden("ReduceMean", [square, m.ints(-1)]) if m.opset >= 18 else m.hidden("ReduceMean", [square], axes=[-1])
    deviation = m.hidden("Sqrt", [m.hidden("Add", [variance, m.constant(np.asarray(1e-5, np.float32))])])
    normed = m.hidden("Div", [centred, deviation])
    m.add("Add", [m.hidden("Mul", [normed, m.weight(d)]), m.weight(d)], x[1])


@row(2)
def softmax(m):
    x = m.pick(least=1)
    if x:
        m.add(["Softmax", "LogSoftmax"][m.below(2)], [x[0]], x[1], axis=int(m.g.integers(-len(x[1]), len(x[1]))))


@row(3)
def reduction(m):
    x = m.pick(least=1)
    if not x:
        return
    op = ["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"][m.below(9)]
    axis, keep = m.below(len(x[1])), m.below(2)
    if op == "ReduceProd" and x[1][axis] > 4:
        op = "ReduceMean"
    shape = x[1][:axis] + ((1,) if keep else ()) + x[1][axis + 1:]
    if m.opset >= 18 or op == "ReduceSum":
        m.add(op, [x[0], m.ints(axis)], shape, keepdims=keep)
    else:
        m.add(op, [x[0]], shape, axes=[axis], keepdims=keep)


@row()
def running_sum(m):
    x = m.pick(least=1)
    if x:
        m.add("CumSum", [x[0], m.constant(np.asarray(m.below(len(x[1])), np.int64))], x[1])


@row()
def attention(m):
    x = m.pick(rank=3)
    if not x:
        return
    b, n, d = x[1]
    q, k, v = (m.hidden("MatMul", [x[0], m.weight(d, 4, scale=d ** -0.5)]) for _ in range(3))
    scores = m.hidden("MatMul", [q, m.hidden("Transpose", [k], perm=[0, 2, 1])])
    scaled = m.hidden("Mul", [scores, m.constant(np.asarray(0.5, np.float32))]) if m.chance(0.5) else m.hidden("Div", [scores, m.constant(np.asarray(2, np.float32))])
    if m.chance(0.4):
        mask = np.where(m.g.random((n, n)) < 0.3, -1e9 if m.chance(0.5) else -1e4, 0).astype(np.float32)
        mask[:, 0] = 0
        scaled = m.hidden("Add", [scaled, m.constant(mask)])
    m.add("MatMul", [m.hidden("Softmax", [scaled], axis=-1), v], (b, n, 4))


@row()
def activation_written_out(m):
    x = m.pick()
    if m.chance(0.5):
        return m.add("Mul", [x[0], m.hidden("Sigmoid", [x[0]])], x[1])
    inner = m.hidden("Erf", [m.hidden("Div", [x[0], m.constant(np.asarray(math.sqrt(2), np.float32))])])
    half = m.hidden("Mul", [x[0], m.hidden("Add", [inner, m.constant(np.asarray(1, np.float32))])])
    m.add("Mul", [half, m.constant(np.asarray(0.5, np.float32))], x[1])


@row()
def recurrence(m):
    x = m.pick(rank=3)
    if not x or x[1][0] > 12:
        return
    t, n, d = x[1]
    op, gates = [("LSTM", 4), ("GRU", 3), ("RNN", 1)][m.below(3)]
    h, directions = 3, 1 + m.below(2)
    operands = [x[0], m.weight(directions, gates * h, d, scale=d ** -0.5), m.weight(directions, gates * h, h, scale=0.5), m.weight(directions, 2 * gates * h)]
    extra = {"direction": "bidirectional"} if directions == 2 else {}
    if op == "GRU" and m.chance(0.5):
        extra["linear_before_reset"] = 1
    m.add_several(op, operands, [(t, directions, n, h), (directions, n, h)], hidden_size=h, **extra)


@row(4)
def reshaped(m):
    x = m.pick()
    size = math.prod(x[1])
    ways = [(size,), (1, size), x[1] + (1,), (1,) + x[1]]
    for a in (2, 3, 4):
        if size % a == 0:
            ways += [(a, size // a), (size // a, a), (1, a, size // a)]
            if size % (a * 4) == 0 and size // a // 4 >= 3:
                ways += [(1, a, 4, size // a // 4)]
    shape = ways[m.below(len(ways))]
    asked = list(shape)
    if m.chance(0.4):
        asked[m.below(len(asked))] = -1
    m.add("Reshape", [x[0], m.ints(*asked)], shape)


@row(4)
def moved(m):
    x = m.pick(least=1)
    if not x:
        return
    rank, how = len(x[1]), m.below(10)
    axis = m.below(rank)
    d = x[1][axis]
    if how == 0:
        perm = [int(p) for p in m.g.permutation(rank)]
        m.add("Transpose", [x[0]], [x[1][p] for p in perm], perm=perm)
    elif how == 1:
        m.add("Unsqueeze", [x[0], m.ints(axis)], x[1][:axis] + (1,) + x[1][axis:])
    elif how == 2 and d == 1:
        m.add("Squeeze", [x[0], m.ints(axis)], x[1][:axis] + x[1][axis + 1:])
    elif how == 3:
        m.add("Flatten", [x[0]], (math.prod(x[1][:axis]), math.prod(x[1][axis:])), axis=axis)
    elif how == 4 and d >= 2:
        m.add("Slice", [x[0], m.ints(1), m.ints(d), m.ints(axis)], x[1][:axis] + (d - 1,) + x[1][axis + 1:])
    elif how == 5 and d >= 2:
        first = 1 + m.below(d - 1)
        shapes = [x[1][:axis] + (part,) + x[1][axis + 1:] for part in (first, d - first)]
        m.add_several("Split", [x[0], m.ints(first, d - first)], shapes, axis=axis)
    elif how == 6 and math.prod(x[1]) < 500:
        m.add("Tile", [x[0], m.ints(*[2 if i == axis else 1 for i in range(rank)])], x[1][:axis] + (2 * d,) + x[1][axis + 1:])
    elif how == 7:
        m.add("Gather", [x[0], m.constant(m.g.integers(0, d, 3))], x[1][:axis] + (3,) + x[1][axis + 1:], axis=axis)
    elif how == 8:
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = 1, 2
        value = [m.constant(np.asarray(m.g.choice([0, 0.3]), np.float32))] if m.chance(0.6) else []
        m.add("Pad", [x[0], m.ints(*pads), *value], x[1][:axis] + (d + 3,) + x[1][axis + 1:])
    elif how == 9 and math.prod(x[1]) < 500:
        m.add("Expand", [x[0], m.ints(2, *[1] * rank)], (2, *x[1]))


@row(3)
def joined(m):
    x = m.pick(least=1)
    if x:
        axis = m.below(len(x[1]))
        others = [v for v in m.values if len(v[1]) == len(x[1]) and all(a == b for i, (a, b) in enumerate(zip(v[1], x[1])) if i != axis)]
        other = others[m.below(len(others))]
        names = [x[0], other[0]]
        size = x[1][axis] + other[1][axis]
        if m.chance(0.2):
            names.append(m.weight(*[1 if i == axis else d for i, d in enumerate(x[1])]))
            size += 1
        m.add("Concat", names, x[1][:axis] + (size,) + x[1][axis + 1:], axis=axis)


@row()
def image(m):
    x = m.pick(rank=4)
    if not x:
        return
    n, c, h, w = x[1]
    how = m.below(3)
    if how == 0 and c % 4 == 0:
        m.add("DepthToSpace", [x[0]], (n, c // 4, 2 * h, 2 * w), blocksize=2)
    elif how == 1 and h % 2 == 0 and w % 2 == 0:
        m.add("SpaceToDepth", [x[0]], (n, 4 * c, h // 2, w // 2), blocksize=2)
    elif how == 2 and math.prod(x[1]) < 500:
        mode = ["nearest", "linear"][m.below(2)]
        scales = m.constant(np.asarray([1, 1, 2, 2], np.float32))
        m.add("Resize", [x[0], "", scales], (n, c, 2 * h, 2 * w), mode=mode, coordinate_transformation_mode="asymmetric")


@row()
def through_shapes(m):
    """A reshape to a shape that the graph computes."""
    x = m.pick(least=2)
    if x:
        sizes = m.hidden("Shape", [x[0]])
        first = m.hidden("Gather", [sizes, m.constant(np.asarray([0], np.int64))], axis=0)
        m.add("Reshape", [x[0], m.hidden("Concat", [first, m.ints(-1)], axis=0)], (x[1][0], math.prod(x[1][1:])))


@row()
def branch(m):
    """An If whose condition is known; its branches read a value of the graph around."""
    x = m.pick()
    flag = m.constant(np.asarray(m.chance(0.5)))
    graphs = []
    for op in ("Tanh", "Relu"):
        inner = m.name("b")
        graphs.append(helper.make_graph([helper.make_node(op, [x[0]], [inner])], op.lower(), [], [helper.make_tensor_value_info(inner, TensorProto.FLOAT, x[1])]))
    m.add("If", [flag], x[1], then_branch=graphs[0], else_branch=graphs[1])


@row()
def cast_and_back(m):
    x = m.pick()
    wide = m.hidden("Cast", [x[0]], to=TensorProto.DOUBLE)
    m.add("Cast", [wide], x[1], to=TensorProto.FLOAT)


def random_model(generator):
    m = Maker(generator)
    shapes = [(4, 6), (3, 8), (2, 5, 6), (4, 3, 8), (1, 4, 6, 6), (2, 3, 8, 8), (7,)]
    for i in range(1 + m.below(2)):
        shape = shapes[m.below(len(shapes))]
        m.inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape))
        m.values.append((f"x{i}", shape))
    if m.chance(0.2):
        m.inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, [2, 4]))
        m.add("Gather", [m.weight(3, 6), "ids"], (2, 4, 6), axis=0)
    first = m.values[-1]
    m.add("MatMul", [first[0], m.weight(first[1][-1], 5, scale=first[1][-1] ** -0.5)], first[1][:-1] + (5,))  # something to train
    wanted = 3 + m.below(23)
    for _ in range(10 * wanted):
        before = len(m.nodes)
        rows[m.below(len(rows))](m)
        wanted -= len(m.nodes) > before
        if m.values and math.prod(m.values[-1][1]) > LARGEST_VALUE:
            m.values.pop()
        if wanted == 0:
            break
    read = {name for node in m.nodes for name in node.input}
    read |= {name for node in m.nodes for a in node.attribute if a.HasField("g") for inner in a.g.node for name in inner.input}
    made = {name for node in m.nodes for name in node.output}
    known = [v for v in m.values if v[0] in made]
    ends = [v for v in known if v[0] not in read or m.chance(0.1)]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ends]
    used = [entry for entry in m.inputs if entry.name in read]
    graph = helper.make_graph(m.nodes, "random", used, outputs, m.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", m.opset)], ir_version=8)
