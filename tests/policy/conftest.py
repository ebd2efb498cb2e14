"""Property tests of policies: no deadline, because the machine may be busy with other things."""

from hypothesis import settings

settings.register_profile("policy", deadline=None, max_examples=100)
settings.load_profile("policy")
