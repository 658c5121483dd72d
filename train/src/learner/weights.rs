//! Stores and loads the parameters of a model as the tensors of a checkpoint, by parameter path.

use crate::error::{Error, Problem};
use crate::run::{HostTensor, TensorMap};
use brian::parameter;
use burn::module::Module;
use burn::tensor::TensorData;
use burn::tensor::backend::Backend;
use std::path::Path;

/// The parameters of a model.
pub fn store_model<B: Backend, M: Module<B>>(model: &M) -> TensorMap {
    let parameters = parameter::collect(model).into_iter();
    parameters
        .map(|(path, data)| (path, on_host(data)))
        .collect()
}

/// Numbers in single precision, those of another type converted.
pub fn on_host(data: TensorData) -> HostTensor {
    let shape = data.shape.as_slice().to_vec();
    let values = data.convert::<f32>().into_vec();
    HostTensor::new(shape, values.expect("single precision"))
}

/// Fills a model, which may be a skeleton without values, with parameters from a file.
///
/// # Errors
/// `Invalid` for the first parameter that is missing, superfluous or of another shape.
pub fn load_model<B: Backend, M: Module<B>>(
    model: M,
    mut tensors: TensorMap,
    file: &Path,
) -> Result<M, Error> {
    let shapes = parameter::shapes(&model);
    for (path, shape) in &shapes {
        let expected = format!("shape {shape:?}");
        match tensors.get(path) {
            Some(tensor) if tensor.shape == *shape => {}
            Some(tensor) => {
                let found = format!("shape {:?}", tensor.shape);
                return Err(wrong(file, path, found, expected));
            }
            None => return Err(wrong(file, path, "nothing".to_string(), expected)),
        }
    }
    if let Some(path) = tensors.keys().find(|path| !shapes.contains_key(*path)) {
        let expected = "only parameters of the recipe's model".to_string();
        return Err(wrong(file, path, "a tensor".to_string(), expected));
    }
    Ok(parameter::assign(model, |path, _| {
        let tensor = tensors.remove(path);
        tensor.expect("every path was found above").into_values()
    }))
}

fn wrong(file: &Path, path: &str, found: String, expected: String) -> Error {
    let problem = Problem::new(file, format!("tensor {path}"), found, expected);
    Error::Invalid(problem.advise("the recipe and the checkpoint do not belong together"))
}
