"""PyTorch's half of tools/compare_tasks.py: the same recipes, written as its users write them."""
import copy
import csv
import math
import time

import numpy as np
import torch
from torch import nn

F = nn.functional


def rate(keys, step, steps):
    """The learning rate of a step, from 0: warm-up, then constant, linear or cosine, as docs/optimizers.md says."""
    warm = keys["warmup_steps"]
    if step < warm:
        return keys["learning_rate"] * (step + 1) / warm
    done = (step - warm) / (steps - warm)
    share = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[keys["schedule"]]
    return keys["final_rate"] + (keys["learning_rate"] - keys["final_rate"]) * share if keys["schedule"] != "constant" else keys["learning_rate"]


def optimizer_of(keys, model):
    trained = [p for p in model.parameters() if p.requires_grad]
    spared = keys.get("no_decay") == ["vectors"]
    groups = [dict(params=[p for p in trained if p.dim() > 1 or not spared], weight_decay=keys["weight_decay"]),
              dict(params=[p for p in trained if p.dim() < 2 and spared], weight_decay=0.0)]
    if keys["optimizer"] == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=keys["momentum"], nesterov=keys["nesterov"])
    return torch.optim.AdamW(groups, lr=1.0, betas=(keys.get("beta1", 0.9), keys.get("beta2", 0.999)))


class Pictures:
    """A folder of images; the transforms of torchvision."""

    def __init__(self, keys, side):
        from torchvision import datasets, transforms as t
        bring = [t.ToTensor(), t.Normalize([keys["mean"][0]] * 3, [keys["std"][0]] * 3)]
        change = [t.RandomResizedCrop(side, scale=(keys["crop_scale"], 1)), t.RandomHorizontalFlip()]
        assert keys["augment"] == ["crop", "flip"]
        load = lambda part, how: datasets.ImageFolder(f"{keys['data']}/{part}", t.Compose(how))
        workers = dict(num_workers=8, persistent_workers=True) if torch.cuda.is_available() else {}
        self.train = torch.utils.data.DataLoader(load("train", change + bring), keys["batch"], shuffle=True, drop_last=True, **workers)
        self.test = torch.utils.data.DataLoader(load("val", [t.Resize(side), t.CenterCrop(side)] + bring), 200, **workers)
        self.steps = len(self.train)

    def batches(self, epoch):
        yield from self.train

    def held_out(self):
        yield from self.test


class Arrays:
    """Inputs and labels in memory, in a new order each epoch."""

    def __init__(self, keys, train, test, device):
        self.train, self.test = ([torch.as_tensor(a).to(device) for a in part] for part in (train, test))
        self.batch, self.steps, self.device = keys["batch"], len(train[0]) // keys["batch"], device

    def batches(self, epoch):
        order = torch.randperm(len(self.train[0]), device=self.device)
        for at in order[:self.steps * self.batch].split(self.batch):
            yield [a[at] for a in self.train]

    def held_out(self):
        yield from zip(*(a.split(200) for a in self.test))


class Windows:
    """Windows of a text's bytes, all of them in a new order each epoch, shifted by a random part of a window."""

    def __init__(self, keys, length, device):
        text = torch.from_numpy(np.fromfile(keys["data"], np.uint8).astype(np.int64)).to(device)
        split = len(text) - int(len(text) * keys["test_fraction"])
        self.train, self.test = text[:split], text[split:]
        self.batch, self.length, self.device = keys["batch"], length, device
        self.steps = (split - 1) // length // self.batch

    def at(self, text, starts):
        rows = text[starts[:, None] + torch.arange(self.length + 1, device=self.device)]
        return rows[:, :-1], rows[:, 1:]

    def batches(self, epoch):
        windows = self.steps * self.batch
        shift = int(torch.randint(max(1, min(self.length, len(self.train) - 1 - windows * self.length)), ()))
        starts = shift + torch.randperm(windows, device=self.device) * self.length
        for part in starts.split(self.batch):
            yield self.at(self.train, part)

    def held_out(self):
        starts = torch.arange((len(self.test) - 1) // self.length, device=self.device) * self.length
        for part in starts.split(64):
            yield self.at(self.test, part)


def table_arrays(keys):
    """(train, test): numbers standardised by the training part, and what label_column names."""
    parts = []
    for path in (keys["data"], keys["test_data"]):
        names, *rows = csv.reader(open(path))
        values = np.array(rows, np.float64)
        labels = [names.index(n) for n in keys.get("label_column", names[-1:])]
        parts.append((np.delete(values, labels, 1), values[:, labels].astype(np.float32)))
    mean, deviation = parts[0][0].mean(0), parts[0][0].std(0)
    return [(((x - mean) / deviation).astype(np.float32), y) for x, y in parts]


def text_arrays(keys, length):
    import tokenizers
    tokenizer = tokenizers.Tokenizer.from_file(keys["tokenizer"])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0)
    parts, kinds = [], None
    for path in (keys["data"], keys["test_data"]):
        rows = list(csv.DictReader(open(path)))
        kinds = kinds or sorted({row["label"] for row in rows})
        codes = tokenizer.encode_batch([row["text"] for row in rows])
        parts.append((np.array([c.ids for c in codes]), np.array([c.attention_mask for c in codes]), np.array([kinds.index(row["label"]) for row in rows])))
    return parts


def scene_arrays(keys):
    parts = []
    for path in (keys["data"], keys["test_data"]):
        with np.load(path) as arrays:
            parts.append((((arrays["images"] * np.float32(keys["scale"]) - keys["mean"][0]) / keys["std"][0]).astype(np.float32), arrays["labels"].astype(np.int64)))
    return parts


def data_of(name, keys, model, device):
    if name == "images":
        return Pictures(keys, 64 if len(model.features) > 10 else 32)  # the large network's input, or the small one's
    if name == "story":
        return Windows(keys, model.m.config.n_positions, device)
    arrays = {"texts": lambda: text_arrays(keys, model.m.config.max_position_embeddings), "scenes": lambda: scene_arrays(keys)}.get(name, lambda: table_arrays(keys))
    return Arrays(keys, *arrays(), device)


LOSSES = {"labels": F.binary_cross_entropy_with_logits, "values": F.mse_loss, "story": lambda logits, labels: F.cross_entropy(logits.flatten(0, 1), labels.flatten())}


def measure(name, logits, labels):
    """As docs/measures.md says, over the whole held-out part."""
    if name == "story":
        return F.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    if name == "values":
        return 1 - ((logits - labels) ** 2).sum().item() / ((labels - labels.mean()) ** 2).sum().item()
    if name == "labels":
        guessed, held = logits > 0, labels > 0.5
        return np.mean([(2 * (g & h).sum() / (g.sum() + h.sum())).item() for g, h in zip(guessed.T, held.T)])
    guessed = logits.argmax(1)
    if name == "scenes":
        kinds = range(logits.shape[1])
        return np.mean([(((guessed == k) & (labels == k)).sum() / ((guessed == k) | (labels == k)).sum()).item() for k in kinds])
    return (guessed == labels).float().mean().item()


def run(name, model, keys, rates, device):
    """Trains in place: (the measure after the last epoch, the mean loss of each)."""
    data, loss_of = data_of(name, keys, model, device), LOSSES.get(name, F.cross_entropy)
    low = keys["precision"] == "fp16"
    optimizer, scaler = optimizer_of(keys, model), torch.amp.GradScaler(device, enabled=low)
    epochs, step, losses = keys["epochs"], 0, []
    model.to(device)
    for epoch in range(epochs):
        model.train()
        if keys.get("freeze") == ["*"]:
            model.features.eval()
        for *inputs, labels in data.batches(epoch):
            now = rate(keys, step, epochs * data.steps)
            assert abs(now - rates.get(step + 1, now)) <= 1e-5 * keys["learning_rate"], (name, step, now, rates[step + 1])
            for group in optimizer.param_groups:
                group["lr"] = now
            with torch.autocast(device, torch.float16, enabled=low):
                loss = loss_of(model(*(x.to(device) for x in inputs)), labels.to(device))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            if keys["clip_norm"]:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), keys["clip_norm"])
            scaler.step(optimizer)
            scaler.update()
            losses.append(loss.detach())
            step += 1
    model.eval()
    logits, labels = [], []
    with torch.no_grad(), torch.autocast(device, torch.float16, enabled=low):
        for *inputs, part in data.held_out():
            logits.append(model(*(x.to(device) for x in inputs)).float().cpu()), labels.append(part.cpu())
    result = measure(name, torch.cat(logits), torch.cat(labels))
    return result, torch.stack(losses).view(epochs, -1).mean(1).tolist()


def train(name, model, runs, rates, seed, device):
    """The runs of a task one after the other from these weights: (measure, seconds, of each run its measure and losses). `rates` are those of the
    other side's last run."""
    torch.manual_seed(1000 + seed)
    model = copy.deepcopy(model)
    began, told = time.perf_counter(), []
    for keys in runs:
        if keys["resize_head"]:
            model.classifier[1] = nn.Linear(model.last_channel, keys["resize_head"])
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(keys.get("freeze") != ["*"] or key.startswith("classifier."))
        told.append(run(name, model, keys, rates if keys is runs[-1] else {}, device))
    return told[-1][0], time.perf_counter() - began, told
