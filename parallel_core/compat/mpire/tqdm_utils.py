"""``mpire.tqdm_utils``: the very module of progress bars, so that its default can be assigned."""

import sys

from parallel_core.pool import bars
from parallel_core.pool.bars import PROGRESS_BAR_DEFAULT_STYLE as PROGRESS_BAR_DEFAULT_STYLE

sys.modules[__name__] = bars
