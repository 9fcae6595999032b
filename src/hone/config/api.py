"""The fields of a section that names a model behind an API."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import Field

from hone.config.parts import Section

URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# What decides no answer: how it is asked, and what it costs.
ASKING = ("key", "send_rows", "price", "parallel", "attempts", "timeout")


class Price(Section):
    """Prices of a provider's tokens, in one currency."""

    input: float = Field(ge=0, description="Price of a million tokens of prompts.")
    output: float = Field(ge=0, description="Price of a million tokens of answers.")


class ApiSection(Section):
    """How a model behind an API is asked; `api` is its form."""

    api: str = ""
    url: str = Field("", description="Address of the API, such as http://127.0.0.1:8000/v1; empty for the provider's.")
    key: str = Field(
        "", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", description="Name of the environment variable with the API's key."
    )
    send_rows: bool = Field(False, description="Allow that rows leave this machine for the API.")
    price: Price | None = Field(None, description=Price.__doc__)
    max_cost: float | None = Field(
        None, gt=0, description="Asking stops before the answers would cost more than this, in the price's currency."
    )
    parallel: int = Field(4, ge=1, le=64, description="Number of requests at a time.")
    attempts: int = Field(6, ge=1, le=20, description="Maximum number of requests for one answer.")
    timeout: float = Field(120.0, gt=0, le=3600, description="Time limit of one request, in seconds.")

    @property
    def address(self) -> str:
        """The address of the API, '' without one."""
        return self.url or URLS.get(self.api.partition("-")[0], "")

    @property
    def prices(self) -> tuple[float, float] | None:
        """The prices of a million tokens of prompts and of answers."""
        return (self.price.input, self.price.output) if self.price else None

    def check_address(self) -> None:
        """Raise ValueError for an address that cannot be asked, or that rows may not be sent to."""
        if self.max_cost is not None and self.price is None:
            raise ValueError("max_cost needs price: {input, output}")
        address = urlsplit(self.address)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"url: {self.url!r} is no http or https address")
        if address.username or address.password or address.query:
            raise ValueError("url: write the key's variable into key, not into the address")
        is_local = address.hostname in LOOPBACK
        if not is_local and not self.send_rows:
            raise ValueError(f"rows would leave this machine for {address.hostname}: set send_rows: true to allow it")
        if self.key and address.scheme == "http" and not is_local:
            raise ValueError("url: a key is sent to https addresses alone")
