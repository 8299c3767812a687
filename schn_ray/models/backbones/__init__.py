"""Backbones by prefix: ``small``, torchvision's, timm's, transformers', open_clip's, vectors."""
