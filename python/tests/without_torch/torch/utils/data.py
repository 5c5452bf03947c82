import numpy as np
from torch import HostTensor


class TensorDataset:
    def __init__(self, *tensors):
        self.arrays = [tensor.array for tensor in tensors]


class DataLoader:
    def __init__(self, dataset, batch_size, shuffle, drop_last):
        assert shuffle and drop_last
        self.arrays, self.size = dataset.arrays, batch_size

    def __iter__(self):
        order = np.random.default_rng(3).permutation(len(self.arrays[0]))
        for first in range(0, len(order) - self.size + 1, self.size):
            yield [HostTensor(array[order[first:first + self.size]]) for array in self.arrays]
