"""The PyTorch models that this project exports, records references of and measures itself against."""
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


def make(name):
    """A model in training mode by name: mlp, lenet, or one of torchvision's, with PyTorch's fresh weights."""
    if name == "mlp":
        return Mlp().train()
    if name == "lenet":
        return LeNet().train()
    import torchvision

    return getattr(torchvision.models, name)(weights=None).train()


def image_shape(name):
    """The shape of one image as the model is usually fed: channels, height, width."""
    return (1, 28, 28) if name in ("mlp", "lenet") else (3, 224, 224)


def classes(name):
    return 10 if name in ("mlp", "lenet") else 1000
