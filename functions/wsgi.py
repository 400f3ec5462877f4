"""What gunicorn serves: `airavata_scheduler.functions.wsgi:application`.

Each worker process imports this once: reads the configuration, connects, and builds the
application.
"""

from __future__ import annotations

from airavata_scheduler.functions import reachability, request_log
from airavata_scheduler.functions.app import GROUPS, create_app
from airavata_scheduler.models import database, history, migrations
from airavata_scheduler.models.configuration import Configuration

configuration = Configuration.read()
request_log.configure(configuration.log_level)
history.keep(configuration.history_dir, "api")
database.connect(configuration.database_url)
with database.connected():
    migrations.check()
if "agent" in configuration.api_groups:
    reachability.say_so()
application = create_app(
    configuration, [group for group in GROUPS if group in configuration.api_groups]
)
