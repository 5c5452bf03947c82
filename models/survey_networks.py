"""Small networks of the kinds that libraries do not carry: generators, graphs, recommenders, sequences, odd operators."""
import torch
from torch import nn

F = nn.functional


class Dcgan(nn.Module):
    def __init__(self):
        super().__init__()
        self.m = nn.Sequential(
            nn.ConvTranspose2d(16, 32, 4, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(True),
            nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
            nn.ConvTranspose2d(16, 3, 4, 2, 1, output_padding=1, bias=False), nn.Tanh())

    def forward(self, x):
        return self.m(x)


class SpatialTransformer(nn.Module):
    def __init__(self, mode="bilinear", padding="zeros"):
        super().__init__()
        self.locate, self.c, self.f = nn.Linear(3 * 16 * 16, 6), nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.mode, self.padding = mode, padding

    def forward(self, x):
        theta = 0.1 * self.locate(x.flatten(1)).view(-1, 2, 3) + torch.tensor([[1.0, 0, 0.03], [0, 1.0, 0.02]])
        grid = F.affine_grid(theta, x.shape, align_corners=False)
        x = F.grid_sample(x, grid, mode=self.mode, padding_mode=self.padding, align_corners=False)
        return self.f(F.relu(self.c(x)).mean((2, 3)))


class Recommender(nn.Module):
    """Embeddings of categories beside dense features, and their products in pairs."""

    def __init__(self):
        super().__init__()
        self.e = nn.ModuleList([nn.Embedding(50, 8) for _ in range(3)])
        self.dense, self.top = nn.Linear(4, 8), nn.Sequential(nn.Linear(8 + 6, 16), nn.ReLU(), nn.Linear(16, 2))

    def forward(self, ids, dense):
        d = F.relu(self.dense(dense))
        rows = torch.stack([d] + [e(ids[:, i]) for i, e in enumerate(self.e)], 1)
        i, j = torch.tril_indices(4, 4, -1)
        return self.top(torch.cat([d, torch.bmm(rows, rows.transpose(1, 2))[:, i, j]], 1))


class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 32, 1))
        self.f = nn.Linear(32, 5)

    def forward(self, x):
        return self.f(torch.max(self.a(x), 2)[0])


class TextReader(nn.Module):
    """Convolution, then a recurrent layer over the columns: a label for each."""

    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(1, 8, 3, padding=1)
        self.r = nn.GRU(8 * 8, 16, batch_first=True, bidirectional=True)
        self.f = nn.Linear(32, 11)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c(x)), (2, 1))
        n, c, h, w = x.shape
        return self.f(self.r(x.permute(0, 3, 1, 2).reshape(n, w, c * h))[0])


class LstmCells(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.c, self.f = nn.Embedding(40, 12), nn.LSTMCell(12, 16), nn.Linear(16, 40)

    def forward(self, ids):
        x = self.e(ids)
        h, c, out = x.new_zeros(x.shape[0], 16), x.new_zeros(x.shape[0], 16), []
        for t in range(x.shape[1]):
            h, c = self.c(x[:, t], (h, c))
            out.append(self.f(h))
        return torch.stack(out, 1)


class LstmWithStates(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.r, self.f = nn.Embedding(40, 12), nn.LSTM(12, 16, 1, batch_first=True, bidirectional=True), nn.Linear(32, 4)

    def forward(self, ids, h, c):
        y, (h, c) = self.r(self.e(ids), (h.transpose(0, 1), c.transpose(0, 1)))
        return self.f(y.mean(1) + torch.cat([h[0], c[1]], -1))


class Rnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.f = nn.Embedding(40, 12), nn.Linear(16, 4)
        self.r = nn.RNN(12, 16, 2, nonlinearity="relu", batch_first=True)

    def forward(self, ids):
        return self.f(self.r(self.e(ids))[0][:, -1])


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.f = nn.Embedding(40, 32), nn.Linear(32, 40)
        self.t = nn.Transformer(32, 4, 1, 1, 64, batch_first=True, dropout=0.1)

    def forward(self, a, b):
        mask = nn.Transformer.generate_square_subsequent_mask(b.shape[1])
        return self.f(self.t(self.e(a), self.e(b), tgt_mask=mask))


class PaddedEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", norm_first=True)
        self.e, self.l, self.f = nn.Embedding(40, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 4)

    def forward(self, ids):
        return self.f(self.l(self.e(ids), src_key_padding_mask=ids == 0)[:, 0])


class CausalConvolutions(nn.Module):
    """Dilated, padded on one side, weights normalised."""

    def __init__(self):
        super().__init__()
        normed = nn.utils.parametrizations.weight_norm
        self.c = nn.ModuleList([normed(nn.Conv1d(8, 8, 3, dilation=2 ** i)) for i in range(3)])
        self.i, self.f = nn.Embedding(40, 8), nn.Linear(8, 40)

    def forward(self, ids):
        x = self.i(ids).transpose(1, 2)
        for i, c in enumerate(self.c):
            x = x + F.elu(c(F.pad(x, (2 * 2 ** i, 0))))
        return self.f(x.transpose(1, 2))


class Wavenet(nn.Module):
    def __init__(self):
        super().__init__()
        self.i, self.o = nn.Conv1d(1, 8, 2, padding=1), nn.Conv1d(8, 10, 1)
        self.d = nn.ModuleList([nn.Conv1d(8, 16, 2, dilation=2 ** k) for k in range(3)])
        self.r = nn.ModuleList([nn.Conv1d(8, 8, 1) for _ in range(3)])

    def forward(self, x):
        x, skip = self.i(x)[..., :-1], 0
        for k, (d, r) in enumerate(zip(self.d, self.r)):
            a, b = d(F.pad(x, (2 ** k, 0))).chunk(2, 1)
            y = r(torch.tanh(a) * torch.sigmoid(b))
            x, skip = x + y, skip + y
        return self.o(F.relu(skip)).transpose(1, 2)


class SuperResolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.p = nn.Conv2d(1, 16, 5, padding=2), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, x):
        return self.p(self.b(torch.tanh(self.a(x))))


class GraphAttention(nn.Module):
    """Over a dense adjacency."""

    def __init__(self):
        super().__init__()
        self.w, self.a, self.b, self.o = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 1), nn.Linear(8, 4)

    def forward(self, x, adjacency):
        h = self.w(x)
        e = F.leaky_relu(self.a(h) + self.b(h).transpose(1, 2), 0.2)
        e = torch.where(adjacency > 0, e, torch.full_like(e, -1e9))
        return self.o(F.elu(torch.softmax(e, -1) @ h))


class MessagePassing(nn.Module):
    """Over a list of edges."""

    def __init__(self):
        super().__init__()
        self.e, self.o = nn.Linear(6, 8), nn.Linear(8, 4)

    def forward(self, x, edges):
        h = F.relu(self.e(x))
        source, target = (edges[:, i].unsqueeze(-1).expand(-1, -1, 8) for i in (0, 1))
        return self.o(torch.zeros_like(h).scatter_add(1, target, torch.gather(h, 1, source)))


class Einsums(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Parameter(torch.randn(12, 3, 4)) for _ in range(3))
        self.o = nn.Parameter(torch.randn(3, 4, 7))

    def forward(self, x):
        q, k, v = (torch.einsum("bsd,dhe->bhse", x, w) for w in (self.q, self.k, self.v))
        a = torch.softmax(torch.einsum("bhqe,bhke->bhqk", q, k) / 2, -1)
        return torch.einsum("bhqe,hec->bqc", a @ v, self.o)


class NormsAndActivations(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.f = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.g, self.i, self.l = nn.GroupNorm(4, 8), nn.InstanceNorm2d(8, affine=True), nn.LocalResponseNorm(3)
        self.p, self.b, self.n = nn.PReLU(8), nn.BatchNorm2d(8), nn.LayerNorm([8, 8, 8])

    def forward(self, x):
        x = self.l(self.i(self.p(self.g(self.c(x)))))
        x = F.softplus(self.n(F.adaptive_avg_pool2d(x, 8)))
        x = (F.celu(self.b(x)) + F.selu(x) - F.hardtanh(x) + F.softsign(x) * F.logsigmoid(x) + F.relu6(x) +
             F.glu(torch.cat([x, x], 1), 1) + F.mish(x) + F.hardshrink(x) + F.tanhshrink(x))
        x = F.normalize(x, dim=1) + F.lp_pool2d(F.pad(x, (0, 1, 0, 1), mode="reflect"), 2.0, 2, 1)
        return self.f(x.amax((2, 3)))


class Volumes(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.u = nn.Conv3d(2, 6, 3, padding=1, groups=2), nn.ConvTranspose3d(6, 4, 2, 2)
        self.f = nn.Linear(4, 5)

    def forward(self, x):
        x = self.u(F.max_pool3d(F.relu(self.c(x)), 2))
        return self.f(F.avg_pool3d(x, 3, 2, 1, count_include_pad=False).mean((2, 3, 4)))


class Interpolations(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 6, 3, padding=1)

    def forward(self, x):
        x = self.c(x)
        return (F.interpolate(x, scale_factor=2, mode="nearest") +
                F.interpolate(x, size=(16, 16), mode="bicubic", align_corners=True) +
                F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


class Distances(nn.Module):
    """Prototypes by cosine and distance, sorting, statistics."""

    def __init__(self):
        super().__init__()
        self.e, self.p = nn.Linear(10, 6), nn.Parameter(torch.randn(5, 6))

    def forward(self, x):
        h = self.e(x)
        c = F.cosine_similarity(h.unsqueeze(1), self.p.unsqueeze(0), dim=-1) - 0.1 * torch.cdist(h, self.p)
        top, ordered = torch.topk(h, 5, dim=-1)[0], torch.sort(h, -1)[0]
        return (c + torch.cumsum(top, -1) + ordered[:, :5] + torch.logsumexp(h, -1, keepdim=True) +
                h.std(-1, keepdim=True) + h.var(-1, keepdim=True) + h.norm(dim=-1, keepdim=True))


class Rounding(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.utils.parametrizations.weight_norm(nn.Linear(12, 8))
        self.f, self.m = nn.Linear(8, 4), nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        y = self.f(torch.sin(self.c(x)) + torch.cos(self.c(x)).clamp(-0.5, 0.5)) @ torch.tril(self.m)
        return y + torch.atan(y) + torch.remainder(x[:, :4], 0.7) + torch.round(3 * y) + torch.sign(y) * y


def ids(length, bound):
    return ((length,) if isinstance(length, int) else length), bound


def floats(*shape):
    return shape, None


# Maker, and {input: (shape of a sample, bound of ids or None)}.
TABLE = {
    "dcgan": (Dcgan, dict(images=floats(16, 1, 1))),
    "spatial_transformer": (SpatialTransformer, dict(images=floats(3, 16, 16))),
    "spatial_transformer_cubic": (lambda: SpatialTransformer("bicubic", "border"), dict(images=floats(3, 16, 16))),
    "recommender": (Recommender, dict(ids=ids(3, 50), dense=floats(4))),
    "pointnet": (PointNet, dict(images=floats(3, 20))),
    "text_reader": (TextReader, dict(images=floats(1, 16, 12))),
    "lstm_cells": (LstmCells, dict(input_ids=ids(6, 40))),
    "lstm_with_states": (LstmWithStates, dict(ids=ids(8, 40), h=floats(2, 16), c=floats(2, 16))),
    "rnn": (Rnn, dict(input_ids=ids(8, 40))),
    "translator": (Translator, dict(a=ids(7, 40), b=ids(6, 40))),
    "padded_encoder": (PaddedEncoder, dict(input_ids=ids(8, 40))),
    "causal_convolutions": (CausalConvolutions, dict(input_ids=ids(12, 40))),
    "wavenet": (Wavenet, dict(images=floats(1, 24))),
    "super_resolution": (SuperResolution, dict(images=floats(1, 8, 8))),
    "graph_attention": (GraphAttention, dict(x=floats(9, 6), adjacency=floats(9, 9))),
    "message_passing": (MessagePassing, dict(x=floats(9, 6), edges=ids((2, 14), 9))),
    "einsums": (Einsums, dict(images=floats(6, 12))),
    "norms_and_activations": (NormsAndActivations, dict(images=floats(3, 16, 16))),
    "volumes": (Volumes, dict(images=floats(2, 8, 8, 8))),
    "interpolations": (Interpolations, dict(images=floats(3, 8, 8))),
    "distances": (Distances, dict(images=floats(10))),
    "rounding": (Rounding, dict(images=floats(12))),
}


def make(name):
    maker, inputs = TABLE[name]
    return maker(), inputs
