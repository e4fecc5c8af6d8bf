"""The HTTP door."""
class HttpDoor:
    ready = True
    hub = None
    def __init__(self, broker, bridge, durability):
        pass
