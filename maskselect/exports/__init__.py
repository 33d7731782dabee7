from maskselect.exports.data_sets import DATA_SETS, DataSet, data_sets

__all__ = ["DATA_SETS", "DataSet", "data_sets"]
