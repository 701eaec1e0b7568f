"""safepref: safety alignment of language models by preference optimization (arXiv 2409.07772)."""

__version__ = "0.1.0"
