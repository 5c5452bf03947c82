"""Stands for PyTorch where it is not installed: tensors that show themselves through DLPack alone."""


class HostTensor:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


from_numpy = HostTensor
