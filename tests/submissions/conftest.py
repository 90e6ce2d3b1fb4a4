"""The web console of the broker's tests, for the service's pages of it."""

from tests.broker.console.web.conftest import console as console
from tests.broker.console.web.conftest import kit as kit
from tests.broker.console.web.conftest import loop as loop
from tests.broker.console.web.conftest import open_as as open_as
