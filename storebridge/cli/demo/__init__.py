"""The main job, shown: a node service that is killed halfway and started again."""
