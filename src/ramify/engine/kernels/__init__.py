"""GPU kernels of sampling: bodies only, `device_sample` launches them."""
