"""Why CMQ refuses a request: its codes, its modules' codes and its texts, as its clients know them.

Over HTTP a refusal has all three, over TCP the module's code and the text. Spelling errors are
the original's: programs compare these texts.
"""

from enum import Enum

from penstock.server.broker.errors import BrokerError, Kind


class Fault(Enum):
    """code, module, text."""

    INVALID = 4000, 10000, "invalid request parameters"
    MISSING = 4000, 10010, "lacked of required parameters"
    QUEUE_NAME = 4000, 10020, "queue name format error"
    PARAMETERS = 4000, 10110, "request parameters error"
    EMPTY_BODY = 4000, 10120, "message body can't be empty"
    KEY_FORMAT = 4000, 10310, "key format error"
    REPEATED = 4000, 10330, "not repeatable"
    OUT_OF_RANGE = 4000, 10350, "value/length out of range"
    WRONG_TYPE = 4000, 10360, "wrong type"
    BATCH_SIZE = 4000, 10370, "batch size out of range"
    HOLES = 4000, 10380, "not consequent"
    MISSING_ONE = 4000, 10390, "lacked of required parameter"
    METHOD = 4000, 10410, "unexpected http method"
    UNREADABLE = 4000, 10420, "request cannot be parsed or > 1 MB"
    ACTION = 4000, 10430, "action name is not existed"
    ACCOUNT = 4000, 10440, "account illegal"
    HANDLE_FORMAT = 4000, 10470, "receiptHandle error"
    FILTER_TAG = 4000, 10490, "filterTag limit"
    ENDPOINT_FORMAT = 4000, 10500, "endpoint format error"
    PROTOCOL = 4000, 10510, "undefined protocol"
    STRATEGY = 4000, 10520, "undefined notify retry stragety"
    FORMAT = 4000, 10530, "undefined notify content format"
    HAS_SUBSCRIPTIONS = 4000, 10540, "topic has subscriptions"
    SUBSCRIPTION_NAME = 4000, 10580, "subscription name format error"
    TOPIC_NAME = 4000, 10590, "topic name format error"
    ENDPOINT = 4000, 10630, "illegal endpoint"
    SIMPLIFIED = 4000, 10640, "queue endpoint needs SIMPLIFIED"
    FILTER_TAGS = 4000, 10670, "too many filterTag"
    BINDING_KEYS = 4000, 10680, "too many bindingKey"
    REWIND_TIME = 4000, 10680, "invalid rewind time"
    DOTS = 4000, 10691, "too many delimeters"
    DELAY = 4000, 10692, "delay seconds out of range"
    ROUTING_KEY = 4000, 10700, "lack of routingKey"
    REWIND_SPAN = 4000, 10700, "rewindSeconds > msgRetentionSeconds"
    BINDING_KEY = 4000, 10710, "lack of bindingKey"
    TAGS = 4000, 10720, "too many msgTag"
    DEAD_LETTER = 4000, 10400, "dead letter queue cannot be used so"
    AUTHENTICATION = 4100, 10030, "authentication failed"
    NOT_AUTHENTICATED = 4100, 10031, "connection not authenticated"
    AUTHENTICATED = 4100, 10032, "already authenticated"
    SECRET_ID = 4100, 10270, "secret id is not existed"
    MESSAGE_SIZE = 4400, 10230, "exceed maximum message size"
    HEAP = 4410, 10240, "exceed maximum message heap number"
    THROTTLED = 4420, 10250, "qps throttling"
    HANDLE = 4430, 10260, "receipt handle is invalid"
    NO_QUEUE = 4440, 10100, "queue is not existed, or deleted"
    NO_TOPIC = 4440, 10600, "topic is not existed, or deleted"
    NO_SUBSCRIPTION_OF_NAME = 4440, 10600, "subscription is not existed, or deleted"
    QUEUES = 4450, 10220, "queue limit"
    TOPICS = 4450, 10610, "topic limit"
    QUEUE_EXISTS = 4460, 10210, "queue is already existed"
    TOPIC_EXISTS = 4460, 10550, "topic is already existed"
    BATCH_BYTES = 4470, 10300, "sum of batch > 1 MB"
    SUBSCRIPTION_EXISTS = 4490, 10470, "subscribtion is already existed"
    MESSAGE_ID = 4490, 10770, "message id invalid"
    NOT_ALLOWED = 4490, 10780, "operation not allowed"
    NOT_TRANSACTIONAL = 4490, 10790, "transaction not supported by this queue"
    SUBSCRIPTIONS = 4500, 10480, "subscription limit"
    BLANKS = 4510, 10570, "blanks in URL"
    INTERNAL = 6000, 10050, "internal error"
    SEND = 6000, 10090, "send failed"
    RECEIVE = 6000, 10130, "receive failed"
    DELETE = 6000, 10140, "delete failed"
    SOME_DELETED = 6010, 10150, "delete partially failed"
    NONE_DELETED = 6020, 10290, "delete all failed"
    NO_SUBSCRIPTION = 6030, 10650, "no subscription"
    NO_MATCH = 6030, 10730, "no match"
    RELEASING = 6040, 10660, "resources of that name still being released"
    CONFIRM = 6040, 10750, "transaction confirm failed"
    NOT_REWINDABLE = 6050, 10670, "queue cannot be rewound"
    UNACKNOWLEDGED = 6070, 10690, "too many unacknowledged or delayed messages"
    NO_MESSAGE = 7000, 10200, "no message"

    @property
    def code(self) -> int:
        """What a client over HTTP branches on."""
        return self.value[0]

    @property
    def module(self) -> int:
        """What a client over TCP branches on."""
        return self.value[1]

    @property
    def text(self) -> str:
        """(module)text, as both wires have it."""
        return f"({self.value[1]}){self.value[2]}"


class CmqError(Exception):
    """The request is refused in CMQ's words; nothing was changed by it. more: what exactly."""

    def __init__(self, fault: Fault, more: str = "") -> None:
        super().__init__(fault.text + (f": {more}" if more else ""))
        self.fault = fault
        self.more = more

    @property
    def text(self) -> str:
        return str(self)


# What the broker's refusals come to where nothing is known about what was asked for.
FAULTS: dict[Kind, Fault] = {
    Kind.MALFORMED: Fault.UNREADABLE,
    Kind.UNKNOWN: Fault.ACTION,
    Kind.NOT_FOUND: Fault.NO_QUEUE,
    Kind.EXISTS: Fault.QUEUE_EXISTS,
    Kind.TOO_LARGE: Fault.MESSAGE_SIZE,
    Kind.STORE_FULL: Fault.HEAP,
    Kind.POISONED: Fault.INTERNAL,
    Kind.BUSY: Fault.THROTTLED,
    Kind.INVALID: Fault.INVALID,
    Kind.SHUTTING_DOWN: Fault.INTERNAL,
    Kind.INTERNAL: Fault.INTERNAL,
    Kind.CORRUPT: Fault.INTERNAL,
    Kind.THROTTLED: Fault.THROTTLED,
}

# Each in its turn, by the verdict of a staged operation.
VERDICTS: dict[int, Fault] = {
    3: Fault.NO_QUEUE,
    5: Fault.MESSAGE_SIZE,
    6: Fault.HEAP,
    7: Fault.SEND,
    8: Fault.THROTTLED,
    12: Fault.RECEIVE,
}


def fault_of(error: BrokerError) -> CmqError:
    """The broker's refusal in CMQ's words."""
    return CmqError(FAULTS[error.kind], error.text)
