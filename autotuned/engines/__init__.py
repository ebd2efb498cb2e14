"""The programs that run models, behind one port. The only code that knows an engine."""
