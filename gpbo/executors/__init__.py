"""Where objectives run: this process, processes of this machine."""
