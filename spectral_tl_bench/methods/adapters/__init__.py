"""Adapters in frozen vision transformers: AdaptFormer, Houlsby, VPT, SSF, Rein, Earth-Adapter, Land-MoE."""
