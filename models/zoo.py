"""The PyTorch models that this project exports, records references of and measures itself against."""
import torch
from torch import nn

F = nn.functional


class Mlp(nn.Module):
    """784-512-512-10 for images of 28x28."""

    def __init__(self):
        super().__init__()
        self.s = nn.Sequential(
            nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    def forward(self, images):
        return self.s(images)


class LeNet(nn.Module):
    """Two convolutions and two fully connected layers for images of 28x28."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 32, 3, padding=1)
        self.c2 = nn.Conv2d(32, 64, 3, padding=1)
        self.f1 = nn.Linear(64 * 7 * 7, 128)
        self.f2 = nn.Linear(128, 10)

    def forward(self, images):
        x = F.max_pool2d(F.relu(self.c1(images)), 2)  # [batch, 32, 14, 14]
        x = F.max_pool2d(F.relu(self.c2(x)), 2)  # [batch, 64, 7, 7]
        return self.f2(F.relu(self.f1(x.flatten(1))))


class SqueezeExcite(nn.Module):
    """Extremes of several kinds behind products with a bias, for images of 28x28: gates, largest values, clips."""

    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 32, 3, padding=1)
        self.c2 = nn.Conv2d(32, 32, 3, padding=1)
        self.down = nn.Conv2d(32, 8, 1)
        self.up = nn.Conv2d(8, 32, 1)
        self.f1 = nn.Linear(64, 10)

    def forward(self, images):
        x = F.hardswish(F.max_pool2d(self.c1(images), 2))  # [batch, 32, 14, 14]
        gate = F.hardsigmoid(self.up(F.relu6(self.down(x.mean((2, 3), keepdim=True)))))
        x = self.c2(x * gate)
        return self.f1(torch.cat([x.amax((2, 3)), torch.logsumexp(x, (2, 3)) - F.adaptive_max_pool2d(-x, 1).flatten(1)], 1))


OWN = dict(mlp=Mlp, lenet=LeNet, squeeze_excite=SqueezeExcite)  # the others are torchvision's


def make(name):
    """A model in training mode by name: one of OWN, or one of torchvision's, with PyTorch's fresh weights."""
    if name in OWN:
        return OWN[name]().train()
    import torchvision

    return getattr(torchvision.models, name)(weights=None).train()


def image_shape(name):
    """The shape of one image as the model is usually fed: channels, height, width."""
    return (1, 28, 28) if name in OWN else (3, 224, 224)


def classes(name):
    return 10 if name in OWN else 1000
