"""From arrays to weights.

Holds the trainer, losses, augmentation, sampling, checkpoints and finetuning.
May import evaluation, models, data, io and what is below.
"""
