"""The host's server: takes in what devices learned, hands out signed releases, and shows the fleet.

rules/        what is decided, pure: rollout, offer, quota, admission, retraining
tables, database, migrations/, objects/    where it is kept
contents, bundles, classes, jobs, devices, standing    what is kept, as rows, inside transactions
fleet         opens all of it
rounds, enrolment          answer a device, one request at a time
certificate, web/          HTTP around them

To learn from what the fleet sent, in another process and without the server running:

    with open_fleet(folder, Address(database, objects, endpoint)) as fleet:
        contents = Contents(fleet.database, fleet.objects)
        for held in contents.listed(model):       # committed or taken, oldest first
            data = contents.read(held)            # canonical bytes; `held` has device, id, level, ...
        chain = contents.told(device)                 # the statistics whose sum is all that a device tells
        contents.take(used)                           # once a bundle has learned from them
        contents.quarantine(suspicious, "why")
        with fleet.database.writing() as session:
            bundles.know(session, model, number, {device: content})    # what an offer calls `taken`
            bundles.roll_out(session, model, "canary", number, Rollout(share=100, steps=(500, 1000)), now)
            edits = classes.edits(session)            # of the label registry
        job = Jobs(fleet.database).take([RETRAIN], worker, now)        # `beat` it, then `finish` or `fail`

To try a real host in a test: `simulators.hosting.hosting(folder)` serves a fleet's folder in this process.

The server finds a bundle by itself once the signed repository lists it (`bundles.adopt`).
"""
