"""Arrays to weights.

Holds the trainer, losses, augmentation, sampling, checkpoints and finetuning.
May touch evaluation, models, data, io and what is below.
"""
