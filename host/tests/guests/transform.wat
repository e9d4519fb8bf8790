;; A transform in the fewest words, for the cases that no SDK would let a plugin do. A test replaces the marks:
;;   MEMORY   further memories and tables of the core module
;;   START    what runs when the module is instantiated
;;   PROCESS  the body of `process`: batch pointer and length in, pointer to the result out
;;   IMPORT   further imports of the component
;;   WORK     the name of the exported working interface
;;
;; The first page: 0 a zeroed result (ok, no emissions, no refusals); 256 the descriptor; 512 its strings.
(component
  (;IMPORT;)
  (core module $code
    (memory (export "memory") 2)
    (;MEMORY;)
    (global $heap (mut i32) (i32.const 65536))
    (data (i32.const 256)
      "\00\02\00\00\04\00\00\00"  ;; name: 512, 4 bytes
      "\04\02\00\00\05\00\00\00"  ;; version: 516, 5 bytes
      "\00\02\00\00\00\00\00\00"  ;; description: empty
      "\00\02\00\00\00\00\00\00"  ;; config-schema: empty
      "\00\00\00\00\00\00\00\00"  ;; no ports
      "\00\00\00\00\00\00\00\00") ;; no tables
    (data (i32.const 512) "test0.0.1")
    (func (export "realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
      (local $at i32)
      (global.set $heap
        (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
      (local.set $at (global.get $heap))
      (global.set $heap (i32.add (local.get $at) (local.get $size)))
      (local.get $at))
    (func (export "describe") (result i32) (i32.const 256))
    (func (export "configure") (param i32 i32) (result i32) (i32.const 0))
    (func (export "process") (param $batch i32) (param $count i32) (result i32)
      (local $i i32)
      (;PROCESS;)
      (i32.const 0))
    (func $start (;START;))
    (start $start))
  (core instance $code (instantiate $code))

  (type $bytes (list u8))
  (type $header (record (field "name" string) (field "value" $bytes)))
  (type $message (record
    (field "partition" u32) (field "offset" u64) (field "timestamp" s64) (field "attempt" u32)
    (field "key" (option $bytes)) (field "headers" (list $header)) (field "payload" $bytes)))
  (type $emission (record
    (field "input" (option u32)) (field "port" (option string)) (field "key" (option $bytes))
    (field "headers" (list $header)) (field "timestamp" (option s64)) (field "payload" $bytes)))
  (type $refusal (variant (case "reject" string) (case "retry" (option u64))))
  (type $refused (record (field "input" u32) (field "refusal" $refusal)))
  (type $retry-hint (record (field "reason" string) (field "after" (option u64))))
  (type $failure (variant (case "retry" $retry-hint) (case "fatal" string)))
  (type $outcome (record (field "emissions" (list $emission)) (field "refusals" (list $refused))))
  (type $port (record (field "name" string) (field "description" string)))
  (type $column-type (enum "boolean" "integer" "float" "text" "bytes" "timestamp" "json"))
  (type $column (record (field "name" string) (field "type" $column-type)))
  (type $table (record
    (field "name" string) (field "columns" (list $column)) (field "key" (list string))
    (field "newest-by" (option string))))
  (type $descriptor (record
    (field "name" string) (field "version" string) (field "description" string) (field "config-schema" string)
    (field "ports" (list $port)) (field "tables" (list $table))))

  (func $describe (result $descriptor)
    (canon lift (core func $code "describe") (memory (core memory $code "memory"))))
  (func $configure (param "config" string) (result (result (error string)))
    (canon lift (core func $code "configure") (memory (core memory $code "memory")) (realloc (core func $code "realloc"))))
  (func $process (param "batch" (list $message)) (result (result $outcome (error $failure)))
    (canon lift (core func $code "process") (memory (core memory $code "memory")) (realloc (core func $code "realloc"))))

  (instance $lifecycle
    (export "port" (type $port)) (export "column-type" (type $column-type)) (export "column" (type $column))
    (export "table" (type $table)) (export "descriptor" (type $descriptor))
    (export "describe" (func $describe)) (export "configure" (func $configure)))
  (instance $transforming
    (export "header" (type $header)) (export "message" (type $message)) (export "emission" (type $emission))
    (export "refusal" (type $refusal)) (export "refused" (type $refused)) (export "retry-hint" (type $retry-hint))
    (export "failure" (type $failure)) (export "outcome" (type $outcome)) (export "process" (func $process)))
  (export "tidemill:plugin/lifecycle@0.1.0" (instance $lifecycle))
  (export "(;WORK;)" (instance $transforming)))
