"""ImageNet-C: the protocol, and the fifteen corruptions batched in torch.

`protocol.Corruptions` is what the registry names; `generate.corrupt` and `write.write_corrupted` are what others
import. It imports `cim_bench.contracts` and below.
"""
