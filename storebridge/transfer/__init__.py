"""Moving what a database holds: to another of any backend, into a file and back, and the proof that
nothing was lost on the way.

    content        what a database holds, as a stream of entries
    digests        one number for all of it, the same on every backend
    filling        making a database hold it, wherever the last attempt was stopped
    places         where that is done, so that nothing is lost that was there before
    migration, verification, jsonlines
"""
