"""Do DeFT's claims hold: fewer KV bytes, and faster attention for it?  (`ramify bench deft`)

Its own workloads, step by step: what each method reads and writes, counted from the plans of all
steps, and on a GPU the time of a layer, measured at some steps and summed over all.
Source: DeFT, Yao et al., ICLR 2025 (arXiv 2404.00242).
"""
