"""The models that one process uses: the model in use and the shadow model."""

import logging
from functools import cached_property

from scoring import Model, ModelRefused, load_model
from settings import Settings

logger = logging.getLogger(__name__)


class Models:
    """Loads each model when it is first asked for, and keeps it."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.model_path
        self._shadow_path = settings.shadow_model_path
        self._violation_share = settings.violation_share

    def current(self) -> Model:
        """Return the model of ``MODEL_PATH``. The first call blocks for about a second.

        Raises:
          ModelRefused: The file is not the trained one, or needs another scikit-learn. The next call reads
            the file again.
        """
        return self._current

    def shadow(self) -> Model | None:
        """Return the model of ``SHADOW_MODEL_PATH``; None without a path, and for a refused model.

        A model on trial stops no worker, so a refusal is only logged.
        """
        return self._shadow

    @cached_property
    def _current(self) -> Model:
        return load_model(self._path, violation_share=self._violation_share)

    @cached_property
    def _shadow(self) -> Model | None:
        if not self._shadow_path:
            return None
        try:
            loaded = load_model(self._shadow_path, violation_share=self._violation_share)
        except ModelRefused as refused:
            logger.error("The shadow model is left out: %s", refused)
            return None
        logger.info("Shadow model %s is loaded", loaded.version)
        return loaded
