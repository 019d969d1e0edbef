"""What a fork server imports that must not import the Rerun SDK (`Pool(preload=False)`): cheap modules of ours."""

import mpr.messages
import mpr.pickling
import mpr.transport  # noqa: F401  # imported for the side effect: its children have it
