"""The rows that a single-machine system begins with: its user, project, resource and agent."""

from __future__ import annotations

import getpass
import re

from airavata_scheduler.backends.stores import ensure_default_storage
from airavata_scheduler.client.profile import Profile, default_folder
from airavata_scheduler.commands.local_children import COMPUTE_NAME, Addresses, environment
from airavata_scheduler.commands.local_home import LocalHome, write_private
from airavata_scheduler.models import database, migrations
from airavata_scheduler.models.configuration import Configuration
