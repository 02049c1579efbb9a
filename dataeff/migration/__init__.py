"""Coming over from DeepSpeed: its configs, its checkpoints, and the recipes that were published with it.

`from_deepspeed` reads a config and gives its paces, layers and settings as objects of this library, with a
list of what will go otherwise. `unwrapped` gives a checkpoint the names that the model has without
DeepSpeed's wrapper. `recipe` gives a published config.
"""

from dataeff.migration._checkpoint import unwrapped
from dataeff.migration._import import from_deepspeed
from dataeff.migration._imported import Imported
from dataeff.migration._recipes import recipe, recipe_text, recipes

__all__ = ["Imported", "from_deepspeed", "recipe", "recipe_text", "recipes", "unwrapped"]
