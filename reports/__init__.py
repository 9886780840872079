"""From records to tables: read, select, fill, render.

They read records and write text. They import `cim_bench.records`, `cim_bench.data.sets` and `cim_bench.common`, and
no torch.
"""
