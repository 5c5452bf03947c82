#!/usr/bin/env python3
"""What scikit-learn and torchmetrics measure on small outputs: writes tests/references/measures.json.

Needs numpy, scikit-learn and, for the perplexity and IoU of torchmetrics, torchmetrics with PyTorch.
"""
import json
import math
import pathlib
import sys
import warnings

import numpy as np
import sklearn
import sklearn.metrics as sk

warnings.filterwarnings("ignore")  # what is not defined is recorded as such
random = np.random.default_rng(13)
AVERAGES = ("macro", "micro", "weighted")
COUNTS = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}


def defined(value):
    return None if value is None or math.isnan(value) else float(value)


def counted(labels, guesses, binary):
    """precision, recall and F1 in each average."""
    found = {}
    for name, function in COUNTS.items():
        for average in AVERAGES:
            found[f"{name}_{average}"] = function(labels, guesses, average=average, zero_division=0)
        found[name] = function(labels, guesses, average="binary", zero_division=0) if binary else found[name + "_macro"]
    found["iou"] = sk.jaccard_score(labels, guesses, average="macro", zero_division=0)
    return found


def per_class(labels, guesses, classes):
    return {name: [float(v) for v in function(labels, guesses, labels=range(classes), average=None, zero_division=0)]
            for name, function in {**COUNTS, "iou": sk.jaccard_score}.items()}


def softmax(scores):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def area(labels, scores):
    return float(sk.roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else math.nan


def case(name, meaning, scores, labels, measures, axis=1, ignored=None, **more):
    return {"name": name, "meaning": meaning, "class_axis": axis, "ignored": ignored, "shape": list(scores.shape),
            "scores": [float(v) for v in scores.ravel()], "label_shape": list(labels.shape),
            "labels": [float(v) for v in labels.ravel()],
            "measures": {k: defined(v) for k, v in measures.items()}, **more}


def of_classes(name, scores, labels, axis=1, ignored=None, meaning="logits", auc=True):
    flat = np.moveaxis(scores, axis, -1).reshape(-1, scores.shape[axis]).astype(np.float64)
    truth = labels.ravel()
    flat, truth = flat[truth != (ignored if ignored is not None else -1)], truth[truth != (ignored if ignored is not None else -1)]
    guesses, classes = flat.argmax(-1), flat.shape[1]
    measures = counted(truth, guesses, classes == 2 and set(truth) | set(guesses) == {0, 1})
    for k in range(2, classes):  # of equal scores the lower class: scikit-learn takes the higher one
        measures[f"top{k}"] = sk.top_k_accuracy_score(classes - 1 - truth, flat[:, ::-1], k=k, labels=range(classes))
    if auc:
        scored = softmax(flat) if meaning == "logits" else flat
        areas = [area(truth == c, scored[:, c]) for c in range(classes)]
        measures["auc"] = float(np.nanmean(areas)) if not all(map(math.isnan, areas)) else math.nan
        if not any(map(math.isnan, areas)) and classes > 2:
            assert abs(measures["auc"] - sk.roc_auc_score(truth, softmax(flat) if meaning == "logits" else flat, multi_class="ovr")) < 1e-12
    return case(name, meaning, scores, labels, measures, axis, ignored, per_class=per_class(truth, guesses, classes),
                confusion=sk.confusion_matrix(truth, guesses, labels=range(classes)).tolist())


def of_labels(name, scores, labels, meaning="label_logits"):
    threshold = 0.5 if meaning == "label_probabilities" else 0
    single = scores.shape[1] == 1 if scores.ndim == 2 else True
    truth, guesses = labels.astype(int), (scores > threshold).astype(int)
    if single:
        truth, guesses = truth.ravel(), guesses.ravel()
        measures = counted(truth, guesses, True)
        measures["auc"] = area(truth, scores.ravel())
        measures["accuracy"] = sk.accuracy_score(truth, guesses)
        return case(name, meaning, scores, labels, measures)
    measures = counted(truth, guesses, False)
    areas = [area(truth[:, c], scores[:, c]) for c in range(truth.shape[1])]
    measures["auc"] = float(np.nanmean(areas))
    measures["accuracy"] = float((truth == guesses).mean())
    return case(name, meaning, scores, labels, measures, per_class=per_class(truth, guesses, truth.shape[1]))


def of_values(name, outputs, targets):
    flat, truth = (a.reshape(len(a), -1).astype(np.float64) for a in (outputs, targets))
    return case(name, "values", outputs, targets,
                {"mae": sk.mean_absolute_error(truth, flat), "rmse": math.sqrt(sk.mean_squared_error(truth, flat)),
                 "r2": sk.r2_score(truth, flat) if len(flat) > 1 else math.nan})


def normal(*shape):
    return random.normal(size=shape).astype(np.float32)


def cases():
    labels = random.integers(0, 5, 60)
    scores = normal(60, 5)
    scores[np.arange(60), labels] += 1
    twice = np.concatenate([scores[:40], scores[:20]]), np.concatenate([labels[:40], (labels[:20] + (np.arange(20) % 2)) % 5])
    yield of_classes("five classes, a third of the outputs twice", *twice)
    yield of_classes("five classes with equal scores", np.round(scores * 2) / 2, labels, auc=False)
    absent = scores.copy()
    absent[:, 3] = -20
    yield of_classes("a class that no label has and nobody guesses, another that no label has", absent, np.minimum(labels, 2))
    yield of_classes("labels of one class alone", scores, np.full(60, 1))
    two = normal(50, 2)
    yield of_classes("two classes", two, random.integers(0, 2, 50))
    yield of_classes("probabilities", softmax(scores).astype(np.float32), labels, meaning="probabilities")
    maps = normal(3, 4, 5, 6)
    pixels = random.integers(0, 4, (3, 5, 6))
    pixels[random.random((3, 5, 6)) < 0.2] = 255
    yield of_classes("pixels, some of them ignored", maps, pixels, ignored=255)
    yield of_classes("positions with classes on the last axis", normal(4, 7, 6), random.integers(0, 6, (4, 7)), axis=2)
    one = np.round(normal(80, 1) * 4) / 4
    yield of_labels("one label with equal scores", one, random.integers(0, 2, (80, 1)))
    yield of_labels("one label that always holds", one, np.ones((80, 1)))
    yield of_labels("one label as a probability", (1 / (1 + np.exp(-one))).astype(np.float32), random.integers(0, 2, 80), "label_probabilities")
    yield of_labels("one label at each position", normal(3, 1, 4, 5), random.integers(0, 2, (3, 1, 4, 5)))
    many, hold = normal(40, 4), random.integers(0, 2, (40, 4))
    hold[:, 2] = 0
    many[:, 2] = -1 - np.abs(many[:, 2])
    yield of_labels("four labels, of which one never holds and is never guessed", many, hold)
    yield of_values("one value", normal(50, 1) + 3, normal(50, 1) + 3)
    targets = normal(30, 3)
    targets[:, 1] = 2.5
    yield of_values("three values, of which one has equal targets", targets + 0.3 * normal(30, 3), targets)
    right = targets.copy()
    yield of_values("right values, of which one has equal targets", right, targets)
    yield of_values("one sample", normal(1, 2), normal(1, 2))
    yield of_values("large values with a small spread", (1e4 + normal(40, 1)).astype(np.float32), (1e4 + normal(40, 1)).astype(np.float32))


def main():
    path = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/references/measures.json")
    recorded = {"source": f"scikit-learn {sklearn.__version__}, numpy {np.__version__}", "cases": list(cases())}
    path.write_text(json.dumps(recorded) + "\n")


main()
