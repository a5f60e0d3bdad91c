"""How public data sets lay out their files: each module recognises one layout and finds its cases by name."""
