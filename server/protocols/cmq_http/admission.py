"""Who may ask: signed requests within the clock's window; without any key, this machine only."""

from penstock.server._wire import HttpRequest
from penstock.server.broker.access import Keys, key_number
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.protocols.cmq_http.form import Form, Pair
from penstock.server.protocols.cmq_http.signature import genuine

# Below it clients are known to draw from so few numbers that two requests may well have the same.
TELLING_NONCE = 10_000


class Admission:
    """Judges requests that are signed in their form.

    clock_s: how far a client's clock may be from ours; 0: any.
    """

    def __init__(self, keys: Keys, clock_s: int = 0, strict: bool = False) -> None:
        self.keys = keys
        self.clock_s = clock_s
        self.strict = strict

    def admit(self, request: HttpRequest, path: bytes, pairs: list[Pair], form: Form) -> int:
        """The number of the key it is signed with; 0: it need not be while there is no key. Raises
        why it is refused."""
        secrets = self.keys.secrets()
        if not secrets:
            self.admit_open(request)
            return 0
        identity = form.text("SecretId")
        secret = secrets.get(identity)
        if not form.values.get("Signature"):
            raise CmqError(Fault.AUTHENTICATION)
        # An unknown id takes as long as a wrong signature.
        host, where = ((raw or b"").decode("ascii", "replace") for raw in (request.host, path))
        good = genuine(secret or identity, request.method.decode(), host, where, pairs,
                       strict=self.strict)
        if secret is None:
            raise CmqError(Fault.SECRET_ID)
        if not good:
            raise CmqError(Fault.AUTHENTICATION)
        return key_number(identity)

    def admit_open(self, request: HttpRequest) -> None:
        """Without any key: raises why not."""
        if not request.local:
            raise CmqError(Fault.SECRET_ID, "there is no access key yet")

    def check_clock(self, moment_s: int, now_us: int) -> None:
        if self.clock_s and abs(moment_s - now_us // 1_000_000) > self.clock_s:
            raise CmqError(Fault.AUTHENTICATION, "the clocks differ too much")

    def tells_repeats(self, form: Form) -> bool:
        """Whether the same signature means the same request said again."""
        if not self.keys.secrets() or "Signature" not in form.values:
            return False
        nonce = form.values.get("Nonce", "")
        return nonce.isascii() and nonce.isdecimal() and int(nonce[:20]) >= TELLING_NONCE
