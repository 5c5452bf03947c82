"""The data of docs/tasks.md: small and made up for this folder, larger and mostly of real things for tools/compare_tasks.py.

`write(out, files)` fills the folder `out` with what the page's commands read. Without `files` shapes are drawn and sentences
made up; `files` is a folder that tools/compare_tasks.py --collect filled: garments of Fashion-MNIST, descriptions of Debian's packages and their
sections, the King James Bible. Tables are made of formulas in both. Needs numpy, Pillow and tokenizers."""
import csv
import gzip
import json
import pathlib

import numpy as np
from PIL import Image

BASE = ["bar", "disc", "frame", "ring", "square"]  # what mobilenet.onnx has learnt before
SHAPES = ["cross", "corner", "saltire"]  # what it is fine-tuned to
GARMENTS = ["top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"]
HARD = ["coat", "pullover", "shirt"]  # garments that are taken for one another


# Images

def draw_shape(kind, g):
    """A bright shape at a random place on black, with noise: u8 [28, 28]."""
    side = int(g.integers(12, 23))
    y, x = np.mgrid[:side, :side]
    far = np.hypot(y - (side - 1) / 2, x - (side - 1) / 2)
    edge = np.minimum(np.minimum(y, x), np.minimum(side - 1 - y, side - 1 - x))
    ink = {"bar": abs(y - side // 2) < 3, "disc": far < side / 2, "frame": edge < 3, "ring": abs(far - side / 2 + 2) < 2, "square": edge >= 0,
           "cross": (abs(y - side // 2) < 2) | (abs(x - side // 2) < 2), "corner": (y < 3) | (x < 3),
           "saltire": (abs(y - x) < 2) | (abs(y + x - side + 1) < 2)}[kind]
    image = np.zeros((28, 28))
    top, left = g.integers(0, 29 - side, 2)
    image[top:top + side, left:left + side] = ink * g.integers(120, 256)
    return np.where(image > 0, np.clip(image + g.normal(0, 16, image.shape), 1, 255), 0).astype(np.uint8)


class Sprites:
    """Small grey pictures on black by kind and part: of("coat", "train") is u8 [N, 28, 28]."""

    def __init__(self, files, each):
        self.files, self.each = files and np.load(files / "garments.npz"), each

    def of(self, kind, part):
        if self.files:
            return self.files["images_" + part][self.files["labels_" + part] == GARMENTS.index(kind)]
        kinds = BASE + SHAPES
        g = np.random.default_rng([kinds.index(kind), part == "test"])
        return np.stack([draw_shape(kind, g) for _ in range(self.each[part])])


def write_images(out, sprites, kinds):
    """out/train/KIND/0000.png and out/val/KIND/0000.png"""
    for part, folder in (("train", "train"), ("test", "val")):
        for kind in kinds:
            (out / folder / kind).mkdir(parents=True, exist_ok=True)
            for i, image in enumerate(sprites.of(kind, part)):
                Image.fromarray(image).save(out / folder / kind / f"{i:04}.png", optimize=True)


def scenes(sprites, kinds, part, count, side, seed):
    """`images` u8 [N, 1, side, side] with two or three sprites on a noisy ground each, `labels` u8 [N, side, side]: 0 ground, 1 to 3 the kind of the
    sprite that is in front."""
    g = np.random.default_rng(seed)
    pictures = [sprites.of(kind, part) for kind in kinds]
    images = np.zeros((count, 1, side, side), np.uint8)
    labels = np.zeros((count, side, side), np.uint8)
    for image, label in zip(images, labels):
        slope = g.uniform(-1, 1, 2) @ np.mgrid[:side, :side].reshape(2, -1) / side
        ground = 60 + 50 * slope.reshape(side, side) + g.normal(0, 20, (side, side))
        for kind in g.integers(0, len(kinds), int(g.integers(2, 4))):
            sprite = pictures[kind][g.integers(len(pictures[kind]))]
            y, x = g.integers(0, side - 27, 2)
            at = (slice(y, y + 28), slice(x, x + 28))
            ground[at] = np.where(sprite > 0, 40 + 0.8 * sprite, ground[at])
            label[at] = np.where(sprite > 0, kind + 1, label[at])
        image[0] = np.clip(ground, 0, 255)
    return dict(images=images, labels=labels)


# Tables

def write_table(path, names, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def curved(x):
    """Friedman's first function (1991) of the first five of ten numbers between 0 and 1; the others say nothing."""
    return 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]


def write_values(path, count, seed):
    """Target: Friedman's function with noise of deviation 1, so that no model has an expected r2 above 0.96."""
    g = np.random.default_rng(seed)
    x = g.uniform(size=(count, 10)).round(4)
    y = curved(x) + g.normal(size=count)
    write_table(path, [f"x{i}" for i in range(10)] + ["y"], [[*map(str, a), f"{b:.4f}"] for a, b in zip(x.tolist(), y)])


def write_labels(path, count, seed):
    """Three labels, each held by about a third: that four formulas of eight numbers are high, with noise of half their deviation."""
    g = np.random.default_rng(seed)
    x = g.normal(size=(count, 8)).round(3)
    scores = np.stack([x[:, 0] * x[:, 1] + x[:, 2], np.abs(x[:, 3]) + x[:, 4] - 0.8, np.sin(2 * x[:, 5]) + 0.7 * x[:, 6] * x[:, 0]], 1)
    held = scores + 0.5 * g.normal(size=scores.shape) > 0.4
    scale = np.array([1, 10, 100, 1, 1000, 1, 0.1, 1])  # columns of unlike sizes, which standardize is for
    write_table(path, [f"x{i}" for i in range(8)] + ["wet", "hot", "loud"], [[*map("{:.6g}".format, a), *b] for a, b in zip(x * scale, held.astype(int))])


# Texts

SUBJECTS = ["the pump", "our compiler", "a small kernel", "the old printer", "the night train", "this keyboard", "the garden gate", "every test"]
GOOD = ["works without a sound", "was quick again", "never failed us", "is a joy to use", "keeps its promises"]
BAD = ["broke after an hour", "is slow and loud", "lost our data", "never works", "made everyone wait"]
AROUND = ["since monday", "as the neighbours say", "in the cold", "on the second floor", "whatever the manual claims", "for the third time"]


def sentence(g):
    """A made-up sentence and whether it praises: what stands behind "nobody says that" is meant the other way round."""
    praise, turned = bool(g.integers(2)), g.integers(3) == 0
    words = [str(g.choice(SUBJECTS)), str(g.choice(GOOD if praise else BAD)), str(g.choice(AROUND))]
    return ("nobody says that " if turned else "") + " ".join(words), "praise" if praise != turned else "blame"


def sentences(count, seed):
    g = np.random.default_rng(seed)
    return [sentence(g) for _ in range(count)]


def descriptions(files):
    """(train, test): descriptions of Debian packages and their sections, an eighth held out."""
    rows = list(csv.reader(gzip.open(files / "packages.csv.gz", "rt")))
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[i] for i in order]
    return rows[len(rows) // 8:], rows[:len(rows) // 8]


def write_tokenizer(path, texts, size):
    """A WordPiece tokenizer as BERT's, of `size` tokens at most, trained on these texts."""
    import tokenizers
    from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=size, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    path.write_text(json.dumps(json.loads(tokenizer.to_str()), indent=None, separators=(",", ":")))
    return tokenizer.get_vocab_size()


def write(out, files=None):
    """Everything that the commands of docs/tasks.md read but the models."""
    out, files = pathlib.Path(out), files and pathlib.Path(files)
    out.mkdir(parents=True, exist_ok=True)
    sprites = Sprites(files, dict(train=24, test=12))
    write_images(out / "images", sprites, HARD if files else SHAPES)
    kinds = ["trouser", "sneaker", "bag"] if files else SHAPES
    for name, part, count, seed in (("scenes", "train", 1600 if files else 72, 0), ("scenes_test", "test", 400 if files else 24, 1)):
        np.savez_compressed(out / f"{name}.npz", **scenes(sprites, kinds, part, count, 64 if files else 32, seed))
    for name, count, seed in (("", 8000 if files else 900, 0), ("_test", 4000 if files else 300, 1)):
        write_values(out / f"values{name}.csv", count, seed)
        write_labels(out / f"labels{name}.csv", count, seed)
    train, test = descriptions(files) if files else (sentences(600, 0), sentences(150, 1))
    write_table(out / "texts.csv", ["text", "label"], train)
    write_table(out / "texts_test.csv", ["text", "label"], test)
    write_tokenizer(out / "tokenizer.json", [text for text, _ in train], 8000 if files else 200)
    story = gzip.open(files / "text.txt.gz", "rt").read() if files else "".join(text + ".\n" for text, _ in sentences(1200, 2))
    (out / "story.txt").write_text(story)


if __name__ == "__main__":
    write(pathlib.Path(__file__).parent)
