"""Reading and writing what outlives a run."""

from effjax.io.bases import load_adapter, save_adapter
from effjax.io.peft import load_peft, save_peft

__all__ = ["load_adapter", "load_peft", "save_adapter", "save_peft"]
