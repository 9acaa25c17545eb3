"""Other systems' rules as policies, each under its name, to be compared as they are.

They look only at what their originals look at: use, not demand; the guests' claims, whether fresh
or not. So they run without our guard, which would hide their faults.
"""
